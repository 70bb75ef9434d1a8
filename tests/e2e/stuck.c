/* Preloaded into a server: as long as there is a file $STUCK_WHILE, nothing gets onto the disk. When exit() has destroyed
   all else, the disk comes back for a second. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *file = getenv("STUCK_WHILE");
    while (file && access(file, F_OK) == 0) {
        usleep(20000);
    }
}

static void come_back(void) {
    const char *file = getenv("STUCK_WHILE");
    if (file && unlink(file) == 0) {
        sleep(1);
    }
}

__attribute__((constructor)) static void begin(void) {
    (void)atexit(come_back);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) {
    wait_for_the_disk();
    return REAL(fsync)(fd);
}
int fdatasync(int fd) {
    wait_for_the_disk();
    return REAL(fdatasync)(fd);
}

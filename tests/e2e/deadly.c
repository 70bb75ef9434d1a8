/* Preloaded into a server: the first bytes that it reads from port $DEADLY_PORT crash it, as those of a malformed stream do;
   with $DEADLY_AFTER_MS, the first that come so long after these. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <sys/resource.h>

/* A real MediaServer asks for a core file, which takes a busy machine a minute to write. */
__attribute__((constructor)) static void want_no_core_file(void) {
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
}

static int is_due(void) {
    static long first = 0;
    const char *after = getenv("DEADLY_AFTER_MS");
    struct timespec now;
    long ms;
    clock_gettime(CLOCK_MONOTONIC, &now);
    ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (first == 0) {
        first = ms;
    }
    return after == NULL || ms - first >= atol(after);
}

static ssize_t bear(int fd, ssize_t got) {
    const char *port = getenv("DEADLY_PORT"), *how = getenv("DEADLY_SIGNAL");
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    if (got > 0 && port && getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET
        && ntohs(peer.sin_port) == atoi(port) && is_due()) {
        if (how && strcmp(how, "ABRT") == 0) {
            abort();
        }
        *(volatile char *)8 = 0;
    }
    return got;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t recv(int fd, void *to, size_t len, int flags) {
    return bear(fd, REAL(recv)(fd, to, len, flags));
}
ssize_t recvfrom(int fd, void *to, size_t len, int flags, struct sockaddr *from, socklen_t *from_len) {
    return bear(fd, REAL(recvfrom)(fd, to, len, flags, from, from_len));
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return bear(fd, REAL(recvmsg)(fd, message, flags));
}
int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    return (int)bear(fd, REAL(recvmmsg)(fd, messages, count, flags, timeout));
}

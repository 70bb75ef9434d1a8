//! The SQLite VFS of the simulated machines: one VFS a machine, whose files are the machine's. As SQLite's own for
//! Unix: the first sync of a log that was opened to be created also syncs its directory, and so does a delete that
//! asks for it.

#![allow(unsafe_code)] // SQLite's VFS is a table of C functions

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Call, Inner, Inode, Step};

/// The VFS of each machine, by its number.
static MACHINES: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

pub fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: no arguments; SQLite allows it at any time.
    ONCE.call_once(|| unsafe {
        ffi::sqlite3_initialize();
    });
}

struct Machine {
    inner: Weak<Inner>,
    shared: Mutex<BTreeMap<Inode, Shared>>,
}

/// What connections to one file share.
#[derive(Default)]
struct Shared {
    handles: usize,
    readers: usize,
    reserved: bool,
    pending: bool,
    exclusive: bool,
    regions: Vec<Box<[u64]>>,
    slots: [(usize, bool); 8],
}

#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    machine: *const Machine,
    inode: Inode,
    path: *mut PathBuf,
    level: c_int,
    shm_shared: u8,
    shm_exclusive: u8,
    sync_dir: bool,
    delete_on_close: bool,
}

pub(super) fn register(number: u64, inner: &Arc<Inner>) {
    let c_name = CString::new(inner.name.as_str()).unwrap();
    let machine = Box::new(Machine { inner: Arc::downgrade(inner), shared: Mutex::default() });
    let vfs = Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: 512,
        pNext: std::ptr::null_mut(),
        zName: c_name.into_raw(),
        pAppData: Box::into_raw(machine).cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: None,
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    });
    let vfs = Box::into_raw(vfs);
    // SAFETY: the VFS lives until `unregister` frees it.
    assert_eq!(unsafe { ffi::sqlite3_vfs_register(vfs, 0) }, ffi::SQLITE_OK);
    MACHINES.lock().insert(number, vfs as usize);
}

/// Called when the machine is dropped: by then no connection is open, each holds the machine through its journal.
pub fn unregister(number: u64) {
    let Some(vfs) = MACHINES.lock().remove(&number) else { return };
    let vfs = vfs as *mut ffi::sqlite3_vfs;
    // SAFETY: it was made by `register`, and nobody uses it any more.
    unsafe {
        ffi::sqlite3_vfs_unregister(vfs);
        drop(Box::from_raw((*vfs).pAppData.cast::<Machine>()));
        drop(CString::from_raw((*vfs).zName.cast_mut()));
        drop(Box::from_raw(vfs));
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `vfs` is one of ours.
unsafe fn machine<'a>(vfs: *mut ffi::sqlite3_vfs) -> (&'a Machine, Arc<Inner>) {
    // SAFETY: see `register`.
    let machine = unsafe { &*(*vfs).pAppData.cast::<Machine>() };
    (machine, machine.inner.upgrade().expect("the machine outlives its connections"))
}

/// # Safety
/// `file` was opened by `open`.
unsafe fn file<'a>(file: *mut ffi::sqlite3_file) -> (&'a mut File, &'a Machine, Arc<Inner>) {
    // SAFETY: as promised by the caller.
    let file = unsafe { &mut *file.cast::<File>() };
    // SAFETY: the machine outlives its files.
    let machine = unsafe { &*file.machine };
    (file, machine, machine.inner.upgrade().expect("the machine outlives its files"))
}

fn code(error: &io::Error, otherwise: c_int) -> c_int {
    match error.kind() {
        io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => otherwise,
    }
}

macro_rules! storage_call {
    ($inner:expr, $call:expr, $code:expr) => {
        if let Err(error) = $inner.call($call) {
            return code(&error, $code);
        }
    };
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe {
        (*out).pMethods = std::ptr::null();
        let (machine, inner) = machine(vfs);
        assert!(!name.is_null(), "our schema needs no temporary files");
        let path = PathBuf::from(CStr::from_ptr(name).to_str().unwrap());
        storage_call!(inner, Call::Names, ffi::SQLITE_CANTOPEN);
        let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let found = {
            let mut state = inner.state.lock();
            if create { state.make(&path) } else { state.find(&path) }
        };
        let Ok(inode) = found else { return ffi::SQLITE_CANTOPEN };
        machine.shared.lock().entry(inode).or_default().handles += 1;
        let logs = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;
        out.cast::<File>().write(File {
            base: ffi::sqlite3_file { pMethods: &METHODS },
            machine,
            inode,
            path: Box::into_raw(Box::new(path)),
            level: ffi::SQLITE_LOCK_NONE,
            shm_shared: 0,
            shm_exclusive: 0,
            sync_dir: create && flags & logs != 0,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(out: *mut ffi::sqlite3_file) -> c_int {
    unsafe {
        unlock(out, ffi::SQLITE_LOCK_NONE);
        let (file, machine, inner) = file(out);
        let path = Box::from_raw(file.path);
        if file.delete_on_close {
            remove(&inner, &path);
        }
        let mut shared = machine.shared.lock();
        let entry = shared.get_mut(&file.inode).unwrap();
        entry.handles -= 1;
        if entry.handles == 0 {
            shared.remove(&file.inode);
        }
        ffi::SQLITE_OK
    }
}

fn remove(inner: &Inner, path: &Path) -> bool {
    let mut state = inner.state.lock();
    let Ok(inode) = state.find(path) else { return false };
    state.step(Step::Remove { path: path.to_owned(), file: inode });
    true
}

unsafe extern "C" fn read(out: *mut ffi::sqlite3_file, to: *mut c_void, len: c_int, offset: i64) -> c_int {
    unsafe {
        let (file, _, inner) = file(out);
        storage_call!(inner, Call::Read, ffi::SQLITE_IOERR_READ);
        let to = std::slice::from_raw_parts_mut(to.cast::<u8>(), len as usize);
        let there = inner.state.lock().now.files[&file.inode].read(offset as u64, to);
        to[there..].fill(0);
        if there == to.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
    }
}

unsafe extern "C" fn write(out: *mut ffi::sqlite3_file, from: *const c_void, len: c_int, offset: i64) -> c_int {
    unsafe {
        let (file, _, inner) = file(out);
        storage_call!(inner, Call::Write, ffi::SQLITE_IOERR_WRITE);
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), len as usize);
        let step = Step::Write { file: file.inode, offset: offset as u64, bytes: bytes.into() };
        inner.state.lock().step(step);
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn truncate(out: *mut ffi::sqlite3_file, len: i64) -> c_int {
    unsafe {
        let (file, _, inner) = file(out);
        storage_call!(inner, Call::Write, ffi::SQLITE_IOERR_TRUNCATE);
        inner.state.lock().step(Step::Truncate { file: file.inode, len: len as u64 });
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn sync(out: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    unsafe {
        let (file, _, inner) = file(out);
        storage_call!(inner, Call::Sync, ffi::SQLITE_IOERR_FSYNC);
        let mut state = inner.state.lock();
        state.step(Step::SyncFile(file.inode));
        if std::mem::take(&mut file.sync_dir)
            && let Some(dir) = (*file.path).parent()
        {
            state.step(Step::SyncDir(dir.to_owned()));
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn file_size(out: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    unsafe {
        let (file, _, inner) = file(out);
        *size = inner.state.lock().now.files[&file.inode].len as i64;
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    unsafe {
        let (_, inner) = machine(vfs);
        storage_call!(inner, Call::Names, ffi::SQLITE_IOERR_DELETE);
        let path = PathBuf::from(CStr::from_ptr(name).to_str().unwrap());
        if !remove(&inner, &path) {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        if sync_dir != 0
            && let Some(dir) = path.parent()
        {
            inner.state.lock().step(Step::SyncDir(dir.to_owned()));
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    there: *mut c_int,
) -> c_int {
    unsafe {
        let (_, inner) = machine(vfs);
        storage_call!(inner, Call::Read, ffi::SQLITE_IOERR_ACCESS);
        let path = PathBuf::from(CStr::from_ptr(name).to_str().unwrap());
        let state = inner.state.lock();
        // As in SQLite's own, an empty file does not exist.
        *there = match state.find(&path) {
            Ok(inode) if flags == ffi::SQLITE_ACCESS_EXISTS => c_int::from(state.now.files[&inode].len > 0),
            Ok(_) => 1,
            Err(_) => 0,
        };
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > len as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
        ffi::SQLITE_OK
    }
}

// ---- locks: <https://www.sqlite.org/lockingv3.html>

unsafe extern "C" fn lock(out: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    unsafe {
        let (file, machine, _) = file(out);
        let mut shared = machine.shared.lock();
        let shared = shared.get_mut(&file.inode).unwrap();
        if file.level >= level {
            return ffi::SQLITE_OK;
        }
        match level {
            ffi::SQLITE_LOCK_SHARED => {
                if shared.pending || shared.exclusive {
                    return ffi::SQLITE_BUSY;
                }
                shared.readers += 1;
            }
            ffi::SQLITE_LOCK_RESERVED => {
                if shared.reserved {
                    return ffi::SQLITE_BUSY;
                }
                shared.reserved = true;
            }
            _ => {
                if file.level < ffi::SQLITE_LOCK_RESERVED {
                    if shared.reserved {
                        return ffi::SQLITE_BUSY;
                    }
                    shared.reserved = true;
                }
                shared.pending = true;
                file.level = ffi::SQLITE_LOCK_PENDING;
                if shared.readers > 1 {
                    return ffi::SQLITE_BUSY;
                }
                shared.exclusive = true;
            }
        }
        file.level = level;
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn unlock(out: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    unsafe {
        let (file, machine, _) = file(out);
        let mut shared = machine.shared.lock();
        let shared = shared.get_mut(&file.inode).unwrap();
        if file.level <= level {
            return ffi::SQLITE_OK;
        }
        if file.level >= ffi::SQLITE_LOCK_RESERVED {
            shared.reserved = false;
            shared.pending = false;
            shared.exclusive = false;
        }
        if level == ffi::SQLITE_LOCK_NONE {
            shared.readers -= 1;
        }
        file.level = level;
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn check_reserved(out: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    unsafe {
        let (file, machine, _) = file(out);
        *reserved = c_int::from(machine.shared.lock()[&file.inode].reserved);
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own: a write that is cut off by a power loss harms nothing beside the bytes written.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

// ---- the memory that connections share, which no power loss survives

unsafe extern "C" fn shm_map(
    out: *mut ffi::sqlite3_file,
    number: c_int,
    size: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    unsafe {
        let (file, machine, _) = file(out);
        let mut shared = machine.shared.lock();
        let shared = shared.get_mut(&file.inode).unwrap();
        *memory = std::ptr::null_mut();
        if extend != 0 {
            while shared.regions.len() <= number as usize {
                shared.regions.push(vec![0; size as usize / 8].into_boxed_slice());
            }
        }
        if let Some(region) = shared.regions.get_mut(number as usize) {
            *memory = region.as_mut_ptr().cast();
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn shm_lock(out: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    unsafe {
        let (file, machine, _) = file(out);
        let mut shared = machine.shared.lock();
        let slots = &mut shared.get_mut(&file.inode).unwrap().slots[first as usize..(first + count) as usize];
        let mask = (((1_u32 << count) - 1) << first) as u8;
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for (index, slot) in slots.iter_mut().enumerate() {
                let bit = 1 << (first as usize + index);
                if file.shm_exclusive & bit != 0 {
                    slot.1 = false;
                }
                if file.shm_shared & bit != 0 {
                    slot.0 -= 1;
                }
            }
            file.shm_exclusive &= !mask;
            file.shm_shared &= !mask;
            return ffi::SQLITE_OK;
        }
        if exclusive {
            if slots.iter().any(|slot| slot.0 > 0 || slot.1) {
                return ffi::SQLITE_BUSY;
            }
            slots.iter_mut().for_each(|slot| slot.1 = true);
            file.shm_exclusive |= mask;
        } else if file.shm_shared & mask == 0 {
            if slots.iter().any(|slot| slot.1) {
                return ffi::SQLITE_BUSY;
            }
            slots.iter_mut().for_each(|slot| slot.0 += 1);
            file.shm_shared |= mask;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(out: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    unsafe {
        shm_lock(out, 0, 8, ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED);
        ffi::SQLITE_OK
    }
}

// ---- the rest

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    unsafe {
        let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), len as usize);
        out.fill_with(|| fastrand::u8(..));
        len
    }
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    std::thread::sleep(std::time::Duration::from_micros(micros as u64));
    micros
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    unsafe { *out = 210_866_760_000_000 };
    ffi::SQLITE_OK
}

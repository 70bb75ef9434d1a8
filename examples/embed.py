"""The same as embed.c in Python, with ctypes.

    embed.py DIRECTORY CAMERAS URL

LD_LIBRARY_PATH has to have libmk_api.so, libzlm_journal.so and libzlm_journal_mk.so.
"""

import ctypes
import json
import os
import sys
import threading
import time
from ctypes import POINTER, Structure, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p

ABI = 17
ADD, REMOVE = 1, 2
PERSISTED = 1
ENABLED = {"enable": "1", "path": "journal/proxies.db"}


class Text(Structure):
    _fields_ = [("data", c_char_p), ("len", c_size_t)]

    @classmethod
    def of(cls, text):
        data = text.encode()
        return cls(data, len(data))

    def read(self):
        return ctypes.string_at(self.data, self.len).decode() if self.len else ""


class Pair(Structure):
    _fields_ = [("name", Text), ("value", Text)]


class Borrowed(Structure):
    """As Text, where the bytes are the library's: they do not end with a zero."""

    _fields_ = [("data", c_void_p), ("len", c_size_t)]

    def read(self):
        return ctypes.string_at(self.data, self.len).decode() if self.len else ""


class Options(Structure):
    _fields_ = [
        ("size", c_uint32), ("abi", c_uint32), ("host_threads", c_uint32), ("settings", POINTER(Pair)),
        ("settings_len", c_size_t), ("base_dir", Text), ("own_hosts", POINTER(Text)), ("own_hosts_len", c_size_t),
        ("own_ports", POINTER(c_uint16)), ("own_ports_len", c_size_t), ("facts", c_void_p),
    ]


class Call(Structure):
    _fields_ = [
        ("size", c_uint32), ("op", c_uint32), ("kind", Text), ("key", Text), ("args", POINTER(Pair)),
        ("args_len", c_size_t), ("caller", Text), ("reason", Text),
    ]


class Ack(Structure):
    _fields_ = [
        ("size", c_uint32), ("persisted", c_uint32), ("seq", c_uint64), ("code", c_int32), ("undone", c_bool),
        ("error", Borrowed),
    ]


class Request(Structure):
    _fields_ = [("size", c_uint32), ("name", Text), ("args", POINTER(Pair)), ("args_len", c_size_t), ("caller", Text)]


class Config(Structure):
    """mk_config."""

    _fields_ = [
        ("thread_num", c_int), ("log_level", c_int), ("log_mask", c_int), ("log_file_path", c_char_p),
        ("log_file_days", c_int), ("ini_is_path", c_int), ("ini", c_char_p), ("ssl_is_path", c_int), ("ssl", c_char_p),
        ("ssl_pwd", c_char_p),
    ]


Done = ctypes.CFUNCTYPE(None, c_void_p, POINTER(Ack))
Reply = ctypes.CFUNCTYPE(None, c_void_p, Borrowed, Borrowed)


def sized(structure, **values):
    return structure(size=ctypes.sizeof(structure), **values)


def pairs(values):
    return (Pair * len(values))(*(Pair(Text.of(name), Text.of(value)) for name, value in values.items()))


# In this order: each needs those before it.
mk = ctypes.CDLL("libmk_api.so", mode=ctypes.RTLD_GLOBAL)
core = ctypes.CDLL("libzlm_journal.so", mode=ctypes.RTLD_GLOBAL)
host = ctypes.CDLL("libzlm_journal_mk.so")
core.zlm_journal_want.argtypes = [c_uint64, POINTER(Call), Done, c_void_p]
core.zlm_journal_api_call.argtypes = [c_uint64, POINTER(Request), Text, Reply, c_void_p]
host.zlm_journal_mk_close.argtypes = [c_uint64]


def check(result):
    if result != 0:
        message, length = ctypes.create_string_buffer(1024), c_size_t()
        core.zlm_journal_last_error(message, c_size_t(1024), ctypes.byref(length))
        raise RuntimeError(message.value.decode())


class Journal:
    def __init__(self, settings, threads, base_dir):
        given = pairs(settings)
        options = sized(
            Options, abi=ABI, host_threads=threads, settings=given, settings_len=len(given), base_dir=Text.of(base_dir)
        )
        handle = c_uint64()
        check(host.zlm_journal_mk_open(ctypes.byref(options), ctypes.byref(handle)))
        self.handle = handle.value

    def change(self, op, args):
        """Returns when the change is on disk."""
        told, came = [], threading.Event()

        @Done
        def done(_, ack):
            told.append((ack.contents.persisted, ack.contents.error.read()))
            came.set()

        given = pairs(args)
        call = sized(Call, op=op, kind=Text.of("pull"), args=given, args_len=len(given), reason=Text.of("embed"))
        check(core.zlm_journal_want(self.handle, ctypes.byref(call), done, None))
        came.wait()
        if told[0][0] != PERSISTED:
            raise RuntimeError(told[0][1])

    def call(self, name):
        """The reply to one of the journal's API calls."""
        told, came = [], threading.Event()

        @Reply
        def reply(_, content_type, body):
            told.append(body.read())
            came.set()

        core.zlm_journal_api_call(self.handle, ctypes.byref(sized(Request, name=Text.of(name))), Text.of(""), reply, None)
        came.wait()
        return json.loads(told[0])

    def close(self):
        check(host.zlm_journal_mk_close(self.handle))


def camera(number):
    return {"vhost": "__defaultVhost__", "app": "live", "stream": f"camera{number}"}


def wait_until_playing(journal, cameras):
    while journal.call("getJournalStatus")["data"]["now"]["playing"] != cameras:
        time.sleep(0.02)
    print("playing", cameras, flush=True)


def main(base_dir, cameras, url):
    config = Config(thread_num=4, log_level=4, log_mask=1, ini=b"[protocol]\nenable_hls=0\nenable_mp4=0\n")
    mk.mk_env_init(ctypes.byref(config))
    # The first member of mk_events, on_mk_media_changed; the others stay zero. It has fewer than a hundred.
    events = (c_void_p * 100)(ctypes.cast(host.zlm_journal_mk_media_changed, c_void_p))
    mk.mk_events_listen(events)
    journal = Journal(ENABLED, 4, base_dir)
    there = journal.call("getJournalStatus")["data"]["proxies"]["enabled"]
    print("opened with", there, flush=True)
    for there in range(there, cameras):
        journal.change(ADD, {**camera(there), "url": url})
    there = max(there, cameras)
    print("acknowledged", there, flush=True)
    wait_until_playing(journal, there)
    for line in sys.stdin:
        word, *rest = line.split() or [""]
        if word == "close":
            break
        if word == "update":
            journal.change(ADD, {**camera(rest[0]), "url": rest[1]})
            wait_until_playing(journal, there)
        elif word == "delete":
            journal.change(REMOVE, camera(rest[0]))
            there -= 1
            wait_until_playing(journal, there)
        elif word == "status":
            print(json.dumps(journal.call("getJournalStatus")), flush=True)
    journal.close()
    print("closed", flush=True)
    # ZLMediaKit's threads outlive Python's objects.
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: embed.py DIRECTORY CAMERAS URL")
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

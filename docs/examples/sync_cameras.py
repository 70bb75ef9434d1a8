#!/usr/bin/env python3
"""Keeps MediaServer in step with a table of cameras.

    sync_cameras.py cameras.db http://127.0.0.1:80 SECRET

Run it when the table has changed, on a timer, or when MediaServer has started: it does what is missing and nothing else.
It changes only the streams with its label; what others have added stays. It needs only Python's standard library.
"""
import json
import sqlite3
import sys
import urllib.parse
import urllib.request

LABEL = "cameras.db"


def wanted(file):
    table = sqlite3.connect(file)
    table.execute(
        "create table if not exists cameras"
        " (name text primary key, url text not null, enabled int default 1, hours text, backups text)"
    )
    return [
        {
            "vhost": "__defaultVhost__", "app": "live", "stream": name, "url": url, "retry_count": -1,
            # Such as "mon-fri 08:00-18:00 @ Asia/Shanghai"; empty: always.
            "journal_hours": hours or "",
            # Such as '["rtsp://10.0.0.2/1"]'; empty: none.
            "journal_backup_urls": backups or "",
        }
        for name, url, hours, backups in table.execute("select name, url, hours, backups from cameras where enabled")
    ]


def sync(server, secret, cameras):
    options = urllib.parse.urlencode({"secret": secret, "label": LABEL})
    request = urllib.request.Request(
        f"{server}/index/api/syncJournal?{options}",
        json.dumps(cameras).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


if __name__ == "__main__":
    file, server, secret = sys.argv[1:]
    answer = sync(server, secret, wanted(file))
    print(json.dumps(answer))
    sys.exit(0 if answer["code"] == 0 and answer["journal"]["persisted"] else 1)

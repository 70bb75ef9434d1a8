//! Reads every row with a valid checksum from a database that SQLite cannot read completely. Works on the bytes of the
//! database and its log, page by page, so that damaged trees, pages or frames do not hide other rows. Formats:
//! <https://www.sqlite.org/fileformat2.html>, "B-tree Pages", "Record Format" and "The Write-Ahead Log". Pure: writes
//! nothing.

use std::collections::HashMap;

use super::intent::Digest;
use super::rows::{self, Row, Value};

/// All our files have SQLite's default page size and no reserved bytes.
const PAGE: usize = 4096;
const FRAME: usize = 24 + PAGE;
const LOG_HEADER: usize = 32;
/// The smallest unit that a disk writes atomically.
const SECTOR: usize = 512;
/// The maximum length of a row, given by the limits on arguments and keys.
const LONGEST_ROW: u64 = 16 << 20;
const MOST_COLUMNS: usize = 9;

pub struct Pages<'a> {
    /// The newest image of each page.
    newest: HashMap<u32, &'a [u8]>,
    /// Frames with an invalid checksum: some rows in them may be intact.
    doubtful: Vec<&'a [u8]>,
    /// The log continues after an unreadable place. A crash damages only the end of a log: a transaction begins only
    /// after the previous one is synced.
    pub log_is_damaged: bool,
}

#[derive(Clone, Copy)]
struct Frame<'a> {
    number: u32,
    page: &'a [u8],
    holds: bool,
    commits: bool,
}

impl<'a> Pages<'a> {
    pub fn new(database: &'a [u8], log: &'a [u8]) -> Self {
        let mut newest: HashMap<u32, &[u8]> = (1..).zip(database.chunks(PAGE)).collect();
        let mut doubtful = Vec::new();
        let (frames, log_is_damaged) = frames(log);
        // Frames after the last commit belong to no finished transaction.
        let committed = frames.iter().rposition(|frame| frame.commits).map_or(0, |last| last + 1);
        for frame in frames.into_iter().take(committed) {
            if frame.holds {
                newest.insert(frame.number, frame.page);
            } else {
                doubtful.push(frame.page);
            }
        }
        Self { newest, doubtful, log_is_damaged }
    }

    /// Passes every valid row to `found`, in no order, some of them more than once or outdated.
    pub fn rows(&self, mut found: impl FnMut(Row)) {
        for page in self.newest.values().chain(&self.doubtful) {
            self.leaf(page, &mut found);
        }
    }

    /// Reads a page as a leaf of a table, whatever its type says: rows are recognized by their checksums alone.
    fn leaf(&self, page: &[u8], found: &mut impl FnMut(Row)) {
        let mut sums = HashMap::new();
        let mut content = page.len();
        let mut at = 8;
        while let Some(cell) = u16_at(page, at) {
            let cell = usize::from(cell);
            if cell > at && cell < page.len() {
                content = content.min(cell);
                match self.cell(page, cell) {
                    Some(Row::Meta(name, value)) => {
                        sums.insert(name, value);
                    }
                    Some(row) => found(row),
                    None => {}
                }
            }
            at += 2;
            // The pointers end where the cells begin.
            if at + 2 > content {
                break;
            }
        }
        let sum = |name: &str| sums.get(name).copied();
        if let (Some(seq), Some(count), Some(Ok(xor))) =
            (sum("seq"), sum("count"), sum("digest").map(u32::try_from))
        {
            found(Row::Sums { seq, digest: Digest { count, xor } });
        }
    }

    fn cell(&self, page: &[u8], at: usize) -> Option<Row> {
        let (length, at) = varint(page, at)?;
        let (rowid, at) = varint(page, at)?;
        if !(4..=LONGEST_ROW).contains(&length) {
            return None;
        }
        let length = usize::try_from(length).ok()?;
        let local = local_length(length);
        let here = page.get(at..at + local)?;
        if local == length {
            return decode(here, rowid.cast_signed());
        }
        let mut payload = here.to_vec();
        let mut next = u32_at(page, at + local)?;
        while payload.len() < length {
            let overflow = self.newest.get(&next)?;
            let rest = length - payload.len();
            payload.extend(overflow.get(4..4 + rest.min(PAGE - 4))?);
            next = u32_at(overflow, 0)?;
        }
        decode(&payload, rowid.cast_signed())
    }
}

/// How many bytes of a row are in the leaf itself.
fn local_length(length: usize) -> usize {
    let most = PAGE - 35;
    if length <= most {
        return length;
    }
    let least = (PAGE - 12) * 32 / 255 - 23;
    let local = least + (length - least) % (PAGE - 4);
    if local <= most { local } else { least }
}

fn decode(payload: &[u8], rowid: i64) -> Option<Row> {
    let (header, mut at) = varint(payload, 0)?;
    let header = usize::try_from(header).ok().filter(|header| *header <= payload.len())?;
    let mut data = header;
    let mut values = Vec::with_capacity(MOST_COLUMNS);
    while at < header {
        let (kind, next) = varint(payload, at)?;
        at = next;
        let (value, length) = match kind {
            0 => (Value::Null, 0),
            1..=6 => {
                let length = [1, 2, 3, 4, 6, 8].get(usize::try_from(kind - 1).ok()?).copied()?;
                (Value::Integer(integer(payload.get(data..data + length)?)), length)
            }
            8 | 9 => (Value::Integer(i64::from(kind == 9)), 0),
            _ if kind >= 13 && kind % 2 == 1 => {
                let length = usize::try_from((kind - 13) / 2).ok()?;
                let bytes = payload.get(data..data.checked_add(length)?)?;
                (Value::Text(std::str::from_utf8(bytes).ok()?), length)
            }
            _ => return None,
        };
        data += length;
        values.push(value);
        if values.len() > MOST_COLUMNS {
            return None;
        }
    }
    rows::row_of(&values, rowid)
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// The frames of a log since its last restart, and whether it is damaged in the middle.
fn frames(log: &[u8]) -> (Vec<Frame<'_>>, bool) {
    let (Some(header), Some(body)) = (log.get(..LOG_HEADER), log.get(LOG_HEADER..)) else {
        return (Vec::new(), false);
    };
    let big_endian = u32_at(header, 0) == Some(0x377f_0683);
    let sum = |seed, bytes: &[u8]| checksum(big_endian, seed, bytes);
    let header_sum = header.get(..24).map(|summed| sum((0, 0), summed));
    let header_holds = header_sum.is_some() && header_sum == pair_at(header, 24);
    // With a damaged header, the first frame shows which frames belong together.
    let salts = if header_holds { pair_at(header, 16) } else { pair_at(body, 8) };

    let mut frames = Vec::new();
    let (mut broken, mut commits_since, mut damaged) = (!header_holds, false, false);
    // The possible seeds of the next frame's checksum: the stored and the computed checksum of this one.
    let mut seeds = [pair_at(header, 24), header_sum];
    // Whether the previous frame is intact: then a checksum that continues it proves the next frame, whatever its salts
    // are. A torn frame proves nothing: with one half of its head from before the log's last restart, its checksum leads
    // to the frame that followed then.
    let mut leads_on = true;
    for (at, raw) in (LOG_HEADER..).step_by(FRAME).zip(body.chunks_exact(FRAME)) {
        let (Some(number), Some(size), Some(page)) = (u32_at(raw, 0), u32_at(raw, 4), raw.get(24..)) else {
            break;
        };
        let said = pair_at(raw, 16);
        let has_salts = salts != Some((0, 0)) && pair_at(raw, 8) == salts;
        if !has_salts && !leads_on {
            seeds = [said, None];
            continue;
        }
        let sums = |size: u32| {
            let start = [number.to_be_bytes(), size.to_be_bytes()];
            seeds.map(|seed| seed.map(|seed| sum(sum(seed, start.as_flattened()), page)))
        };
        let is_said = |sums: [Option<(u32, u32)>; 2]| number > 0 && said.is_some() && sums.contains(&said);
        let its = sums(size);
        let holds = is_said(its);
        broken |= !holds || !has_salts;
        leads_on = holds;
        if !holds && !has_salts {
            seeds = [said, None];
            continue;
        }
        damaged |= holds && commits_since;
        // One flipped bit can make the last frame of a transaction look like one in its middle.
        let commits = size > 0 || !holds && (0..32).any(|bit| is_said(sums(1 << bit)));
        // The commit flag is in the same sector as the salts, except in one frame of 64. If the checksum of such a
        // frame is invalid, a crash may have torn it, and its first half may be older. So damage by a flipped bit in
        // such a frame, if it is synced and ends a transaction, goes unreported if exactly one transaction follows.
        let may_be_torn = !holds && (at + 8).is_multiple_of(SECTOR);
        commits_since |= broken && commits && !may_be_torn;
        seeds = [said, its.into_iter().flatten().next()];
        frames.push(Frame { number, page, holds, commits });
    }
    (frames, damaged)
}

fn checksum(big_endian: bool, seed: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: [u8; 4]| if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().fold(seed, |(one, two), [first, second]| {
        let one = one.wrapping_add(word(*first)).wrapping_add(two);
        (one, two.wrapping_add(word(*second)).wrapping_add(one))
    })
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value << 8 | u64::from(*byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

fn pair_at(bytes: &[u8], at: usize) -> Option<(u32, u32)> {
    Some((u32_at(bytes, at)?, u32_at(bytes, at + 4)?))
}

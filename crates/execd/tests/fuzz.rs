//! Whatever bytes come, every parser gives a value or a reason, and what it gives holds. A moment each with every
//! `cargo test`; longer with `EXECD_FUZZ_SECONDS=600 cargo test --workspace --test fuzz -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::Execd;
use execd::files::archive;
use execd::files::range::{self, Range};
use execd::hooks::Schedule;
use execd::pty::frames::{self, FromClient};
use execd::stream::{Cursor, Lines};
use jiff::Zoned;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Cases of one round.
const CASES: u32 = 256;

/// Gives a check values until the time is over, one round at least; the seed of a round is its number.
fn drive<S: Strategy>(name: &str, strategy: S, check: impl Fn(S::Value)) {
    let seconds = std::env::var("EXECD_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    // What fails is made small by failing again and again; only the last is told.
    std::panic::set_hook(Box::new(|_| {}));
    let (begun, mut round) = (Instant::now(), 0u64);
    while round == 0 || begun.elapsed() < Duration::from_secs(seconds) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&round.to_le_bytes());
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let done = runner.run(&strategy, |value| {
            check(value);
            Ok(())
        });
        if let Err(error) = done {
            eprintln!("{name}, round {round}: {error}");
            panic!("{name} failed");
        }
        round += 1;
    }
    println!("{name}: {} cases in {:.0} s", round * u64::from(CASES), begun.elapsed().as_secs_f64());
}

/// Text that is nearly right: pieces of the language in any order, and anything between.
fn nearly(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![8 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => ".{0,3}"];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

#[test]
fn ranges() {
    const PIECES: &[&str] =
        &["bytes=", "bytes", "=", "-", ",", " ", "0", "1", "9", "18446744073709551615", "99999999999999999999"];
    drive("range", (nearly(PIECES, 9), prop_oneof![0..20u64, any::<u64>()]), |(header, size)| {
        if let Range::Part(from, to) = range::parse(&header, size) {
            assert!(from <= to && to < size, "{header} of {size}: {from} to {to}");
        }
    });
}

#[test]
fn cursors() {
    const PIECES: &[&str] = &["0", "7", "123", ",", "-", "+", " ", "9223372036854775807", "9223372036854775808"];
    drive("cursor", nearly(PIECES, 6), |text| {
        if let Some(cursor) = Cursor::parse(&text) {
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor), "{text}");
        }
    });
}

/// The lines of a text, given in pieces.
fn lines(text: &[u8], from: usize, cuts: &[usize]) -> Vec<(Vec<u8>, bool, u64)> {
    let mut lines = if from == 0 { Lines::default() } else { Lines::after(text[from - 1]) };
    let (mut out, mut at) = (Vec::new(), from);
    let mut add = |piece: execd::stream::Piece<'_>| out.push((piece.text.to_vec(), piece.partial, piece.next));
    for cut in cuts.iter().copied().chain([text.len()]).filter(|cut| *cut >= from) {
        if cut > at {
            lines.push(at as u64, &text[at..cut], &mut add);
            at = cut;
        }
    }
    lines.finish(text.len() as u64, &mut add);
    out
}

#[test]
fn places_in_a_stream() {
    let byte = prop_oneof![4 => prop::sample::select(&b"a\n\r\xC3\xA9\xE2\x82\xAC\xF0\x9F"[..]), 1 => any::<u8>()];
    let text = prop::collection::vec(byte, 0..200);
    drive("places in a stream", (text, prop::collection::vec(0..200usize, 0..8)), |(text, mut cuts)| {
        cuts.retain(|cut| *cut <= text.len());
        cuts.sort_unstable();
        let whole = lines(&text, 0, &[]);
        // Of a line end of two bytes that was cut, the second may count to either side.
        let texts = |pieces: &[(Vec<u8>, bool, u64)]| -> Vec<_> {
            pieces.iter().map(|(text, part, _)| (text.clone(), *part)).collect()
        };
        assert_eq!(texts(&lines(&text, 0, &cuts)), texts(&whole), "how the bytes are cut does not matter");
        for (index, (_, _, next)) in whole.iter().enumerate() {
            let rest = lines(&text, usize::try_from(*next).unwrap(), &cuts);
            assert_eq!(texts(&rest), texts(&whole[index + 1..]), "from {next}");
        }
        for (index, (_, _, next)) in lines(&text, 0, &cuts).iter().enumerate() {
            let rest = lines(&text, usize::try_from(*next).unwrap(), &[]);
            assert_eq!(texts(&rest), texts(&whole[index + 1..]), "from {next}");
        }
    });
}

#[test]
fn frames_of_terminals() {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "\"type\"",
        ":",
        ",",
        "\"stdin\"",
        "\"data\"",
        "\"signal\"",
        "\"SIGINT\"",
        "\"resize\"",
        "\"cols\"",
        "\"rows\"",
        "0",
        "80",
        "65536",
        "-1",
        "\"ping\"",
        "null",
        "[]",
        "\"\\ud800\"",
    ];
    drive("frames of terminals", (nearly(PIECES, 16), prop::collection::vec(any::<u8>(), 0..40)), |(text, bytes)| {
        if let FromClient::Resize(cols, rows) = frames::text(&text) {
            assert!(cols > 0 && rows > 0, "{text}");
        }
        if let FromClient::Stdin(typed) = frames::binary(&bytes) {
            assert_eq!((bytes[0], typed.as_slice()), (0, &bytes[1..]));
        }
    });
}

#[test]
fn schedules() {
    const PIECES: &[&str] = &[
        "*",
        "/",
        "-",
        ",",
        " ",
        " ",
        "0",
        "1",
        "5",
        "30",
        "59",
        "60",
        "12",
        "31",
        "JAN",
        "mon",
        "sun",
        "L",
        "W",
        "#",
        "?",
        "+",
        "@every ",
        "@daily",
        "@",
        "1s",
        "90s",
        "1h",
        "18446744073709551615",
    ];
    let fields = prop::collection::vec(nearly(PIECES, 4), 5).prop_map(|fields| fields.join(" "));
    let text = prop_oneof![nearly(PIECES, 12), fields];
    let now: Zoned =
        "2026-03-29T00:59:30[Europe/Berlin]".parse().unwrap_or_else(|_| "2026-03-29T00:59:30[UTC]".parse().unwrap());
    drive("schedules", text, |text| {
        let Ok(schedule) = Schedule::parse(&text) else { return };
        let begun = Instant::now();
        if let Some(next) = schedule.next(&now) {
            assert!(next > now, "{text}: {next}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{text}: found in time");
    });
}

/// Names in a directory, deep.
fn tree(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter().flatten();
    entries.map(|entry| entry.path().strip_prefix(dir).unwrap().display().to_string()).collect()
}

/// A small archive with names that may lead anywhere.
fn tarball(entries: &[(String, u8, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        let kind = match kind % 6 {
            0 => tar::EntryType::Regular,
            1 => tar::EntryType::Directory,
            2 => tar::EntryType::Symlink,
            3 => tar::EntryType::Link,
            4 => tar::EntryType::Fifo,
            _ => tar::EntryType::GNULongName,
        };
        header.set_entry_type(kind);
        header.set_mode(0o644);
        let data: &[u8] = if kind == tar::EntryType::Regular { b"data" } else { b"" };
        header.set_size(data.len() as u64);
        // Past the checks of the writer.
        let bytes = header.as_mut_bytes();
        let put = |at: usize, text: &str, bytes: &mut [u8; 512]| {
            let text = &text.as_bytes()[..text.len().min(99)];
            bytes[at..at + text.len()].copy_from_slice(text);
        };
        put(0, name, bytes);
        put(157, link, bytes);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn archives() {
    const PIECES: &[&str] = &["a", "b", "/", "..", ".", "/tmp/", "é"];
    let entry = (nearly(PIECES, 5), any::<u8>(), nearly(PIECES, 5));
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let dir = tempfile::tempdir().unwrap();
    drive("archives", (prop::collection::vec(entry, 0..5), flips, cut), |(entries, flips, cut)| {
        let mut bytes = tarball(&entries);
        if !bytes.is_empty() {
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let inner = dir.path().join("inner");
        let target = inner.join("target");
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("old"), "old").unwrap();
        let unpacked = archive::unpack(bytes.as_slice(), &target);
        assert_eq!(
            tree(dir.path()).iter().find(|name| !name.starts_with("inner")),
            None,
            "nothing outside: {entries:?}"
        );
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 1, "nothing beside: {entries:?}");
        if unpacked.is_err() {
            assert_eq!(tree(&target), ["old"], "as it was: {entries:?}");
        }
        // Writers and readers of it stay inside, too.
        let mut packed = Vec::new();
        archive::pack(&target, &mut packed).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
    });
}

#[test]
fn forms() {
    const PIECES: &[&str] = &[
        "--b\r\n",
        "--b--\r\n",
        "--b--",
        "\r\n",
        "\n",
        "Content-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\n\r\n",
        "Content-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n",
        "Content-Disposition: form-data\r\n\r\n",
        "Content-Type: text/plain\r\n",
        "{\"path\":\"DIR/f\"}",
        "{\"path\":\"DIR/f\"}\r\n--b\r\n",
        "{\"path\":\"\"}",
        "{\"path\":5}",
        "data",
        "data\r\n--b--\r\n",
        "--",
        "\0",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let execd = Execd::open();
    let dir = execd.path("forms");
    let kinds = prop::sample::select(
        &[
            "multipart/form-data; boundary=b",
            "multipart/form-data; boundary=\"b\"",
            "multipart/form-data",
            "text/plain",
        ][..],
    );
    drive("forms", (nearly(PIECES, 14), kinds), |(form, kind)| {
        std::fs::create_dir_all(&dir).unwrap();
        let form = form.replace("DIR", dir.to_str().unwrap());
        let status = runtime.block_on(async {
            let request = execd.client.post(execd.url("/files/upload")).header("content-type", kind).body(form.clone());
            let answer = request.send().await.unwrap();
            if answer.status() == 200 { 200 } else { common::code(answer).await.0 }
        });
        assert!(status == 200 || (400..500).contains(&status), "{status}: {form:?}");
        let names = tree(&dir);
        assert!(names.is_empty() || names == ["f"], "{names:?}: {form:?}");
        assert!(status != 200 || names == ["f"], "{form:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    });
}

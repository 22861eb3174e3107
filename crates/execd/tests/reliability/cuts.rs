//! Streams that are cut at random bytes and taken up again: no byte is lost, none comes twice.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::Execd;
use crate::held::{Outcome, watchable, watched};

/// Pseudo-random numbers of a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    Base64,
    Raw,
}

/// Cuts each of many streams a hundred times, each form in turn.
pub async fn cuts(times: usize, seed: u64) -> Outcome {
    let begun = Instant::now();
    let outcome =
        watched("streams cut at random bytes and taken up again", &watchable(), 30, times, async |execd, count| {
            let (mut left, mut round) = (count, 0);
            while left > 0 {
                let form = [Form::Text, Form::Base64, Form::Raw][round % 3];
                left -= one(execd, form, left.min(100), seed + round as u64).await;
                round += 1;
            }
        })
        .await;
    Outcome { took: begun.elapsed(), ..outcome }
}

/// One command whose two streams are known, read to its end with so many cuts; how many there were.
async fn one(execd: &Execd, form: Form, cuts: usize, seed: u64) -> usize {
    let mut random = Random(seed);
    let (out, err) = (text(&mut random, 60_000), text(&mut random, 8_000));
    let (out_file, err_file) = (execd.path("out"), execd.path("err"));
    std::fs::write(&out_file, &out).unwrap();
    std::fs::write(&err_file, &err).unwrap();
    let halves = |file: &std::path::Path, at: usize| {
        let file = file.display();
        (format!("head -c {at} {file}"), format!("tail -c +{} {file}", at + 1))
    };
    let (out_first, out_rest) = halves(&out_file, random.below(out.len()));
    let (err_first, err_rest) = halves(&err_file, random.below(err.len()));
    // Unfinished lines of the two stand beside each other.
    let command = format!("{out_first}; {err_first} >&2; {out_rest}; {err_rest} >&2");
    let started = execd.run(&json!({"command": &command})).await;
    let mean = 2 * (out.len() + err.len()) / cuts.max(1);
    let (mut got, mut place, mut made) = ([Vec::new(), Vec::new()], "0".to_owned(), 0);
    loop {
        let encoding = match form {
            Form::Text => "text",
            Form::Base64 => "base64",
            Form::Raw => "raw",
        };
        let path = format!("/command/{}/output?encoding={encoding}&offset={place}", started.id);
        let mut answer = execd.get(&path).await;
        assert_eq!(answer.status(), 200);
        let limit = (made < cuts).then(|| 1 + random.below(mean.max(64)));
        let (mut seen, mut ended) = (Vec::new(), false);
        while limit.is_none_or(|limit| seen.len() < limit) {
            match answer.chunk().await.unwrap() {
                Some(bytes) => seen.extend_from_slice(&bytes),
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if let Some(limit) = limit.filter(|_| !ended) {
            seen.truncate(limit);
        }
        drop(answer);
        take(form, &seen, &mut got, &mut place);
        if ended {
            break;
        }
        made += 1;
    }
    match form {
        // Both streams in one, in the order of their writing, which the shell gives.
        Form::Raw => assert_eq!(got[0].len(), out.len() + err.len(), "seed {seed}"),
        Form::Base64 => assert!(got == [out, err], "seed {seed}"),
        Form::Text => assert!(got == [lines(&out), lines(&err)], "seed {seed}"),
    }
    made.max(1)
}

/// Adds what is whole of the bytes of one connection, and remembers the place after it.
fn take(form: Form, seen: &[u8], got: &mut [Vec<u8>; 2], place: &mut String) {
    if form == Form::Raw {
        got[0].extend_from_slice(seen);
        *place = got[0].len().to_string();
        return;
    }
    let end = seen.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
    for event in seen[..end].split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_ne!(event["type"], "gap", "nothing may be lost: {event}");
        let stream = match event["type"].as_str() {
            Some("stdout") => 0,
            Some("stderr") => 1,
            _ => continue,
        };
        let text = event["text"].as_str().unwrap();
        if form == Form::Base64 {
            got[stream].extend(STANDARD.decode(text).unwrap());
        } else if event["partial"] == true {
            got[stream].extend_from_slice(text.as_bytes());
        } else {
            got[stream].extend_from_slice(text.trim_end_matches('\n').as_bytes());
            got[stream].push(b'\n');
        }
        *place = event["cursor"].as_str().unwrap().to_owned();
    }
}

/// Lines of all lengths and ends, with characters of all lengths, and a last one without an end.
fn text(random: &mut Random, size: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < size {
        for _ in 0..random.below(120) {
            text.push(['a', 'é', '€', '😀', '\u{85}', '\u{2028}', '"', '\\'][random.below(8)]);
        }
        text.push_str(["\n", "\r\n", "\r", "\n\n"][random.below(4)]);
    }
    text.push_str("last");
    text.into_bytes()
}

/// The text as the stream's lines give it: every end a line feed.
fn lines(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    format!("{}\n", text.replace("\r\n", "\n").replace('\r', "\n")).into_bytes()
}

#[tokio::test]
async fn streams_that_are_cut_lose_and_repeat_nothing() {
    cuts(100, 1).await;
}

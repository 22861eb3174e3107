//! SPDY/3.1, as much of it as Kubernetes' port forwarding speaks: frames in, frames out, no I/O.
//!
//! Kubernetes' clients send it through a WebSocket (or, the older ones, over the connection itself). Neither they nor
//! kube-apiserver use its flow control.

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};

/// Largest frame taken.
const MAX_FRAME: usize = 1 << 20;
/// Largest block of headers, decompressed.
const MAX_HEADERS: usize = 64 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
/// The sender sends no more on the stream.
const FIN: u8 = 1;

/// Words of the dictionary (SPDY/3, 2.6.10.1) that precede its running text, each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// The dictionary's running text.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_423);
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
}

/// Why a session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    /// A frame or its headers are larger than is taken.
    #[error("a frame is too large")]
    TooLarge,
    /// The bytes are no SPDY.
    #[error("a frame is malformed")]
    Malformed,
}

/// What the other side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// It opens a stream.
    Open { stream: u32, headers: Vec<(String, String)> },
    /// Bytes on a stream; with `last` it sends no more there.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// It breaks a stream off.
    Reset { stream: u32 },
    /// It wants this back.
    Ping(u32),
    /// It goes.
    Away,
}

/// Reads frames out of the bytes that come.
pub(super) struct Decoder {
    buffer: BytesMut,
    inflate: Decompress,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), inflate: Decompress::new(true) }
    }

    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame that means something here.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            let Some(head) = self.buffer.get(..8) else { return Ok(None) };
            let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (first, second) = (word(0), word(4));
            let length = (second & 0x00ff_ffff) as usize;
            let last = (second >> 24) as u8 & FIN != 0;
            if length > MAX_FRAME {
                return Err(SpdyError::TooLarge);
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let body = self.buffer.split_to(length).freeze();
            if first >> 31 == 0 {
                return Ok(Some(Frame::Data { stream: first, bytes: body, last }));
            }
            if let Some(frame) = self.control((first & 0xffff) as u16, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, body: &[u8]) -> Result<Option<Frame>, SpdyError> {
        let number = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            bytes.map(u32::from_be_bytes).ok_or(SpdyError::Malformed)
        };
        Ok(match kind {
            SYN_STREAM => {
                let headers = self.headers(body.get(10..).ok_or(SpdyError::Malformed)?)?;
                Some(Frame::Open { stream: number(0)? & 0x7fff_ffff, headers })
            }
            RST_STREAM => Some(Frame::Reset { stream: number(0)? & 0x7fff_ffff }),
            PING => Some(Frame::Ping(number(0)?)),
            GOAWAY => Some(Frame::Away),
            // Replies, settings, headers and windows say nothing that matters here.
            _ => None,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let number = |rest: &mut &[u8]| -> Option<usize> {
            let (head, tail) = rest.split_at_checked(4)?;
            *rest = tail;
            Some(u32::from_be_bytes(head.try_into().ok()?) as usize)
        };
        let text = |rest: &mut &[u8]| -> Option<String> {
            let length = number(rest)?;
            let (head, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            Some(String::from_utf8_lossy(head).into_owned())
        };
        let count = number(&mut rest).ok_or(SpdyError::Malformed)?;
        (0..count.min(MAX_HEADERS))
            .map(|_| Some((text(&mut rest)?.to_lowercase(), text(&mut rest)?)))
            .collect::<Option<Vec<_>>>()
            .ok_or(SpdyError::Malformed)
    }

    /// All blocks of a session are one compressed stream.
    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::with_capacity(1_024);
        while !block.is_empty() {
            if plain.len() == plain.capacity() {
                if plain.len() >= MAX_HEADERS {
                    return Err(SpdyError::TooLarge);
                }
                plain.reserve(plain.len().max(1_024));
            }
            let (before, made) = (self.inflate.total_in(), plain.len());
            match self.inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| SpdyError::Malformed)?;
                }
                Err(_) => return Err(SpdyError::Malformed),
            }
            let used = usize::try_from(self.inflate.total_in() - before).unwrap_or_default();
            block = block.get(used..).ok_or(SpdyError::Malformed)?;
            if used == 0 && plain.len() == made && plain.len() < plain.capacity() {
                return Err(SpdyError::Malformed);
            }
        }
        Ok(plain)
    }
}

fn frame(first: u32, flags: u8, body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or_default() & 0x00ff_ffff;
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    out.extend_from_slice(body);
    out.into()
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    frame(1 << 31 | 3 << 16 | u32::from(kind), 0, body)
}

/// Bytes on a stream.
pub(super) fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
    frame(stream, if last { FIN } else { 0 }, bytes)
}

/// The answer to a ping.
pub(super) fn pong(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// Breaks a stream off: it was cancelled.
pub(super) fn reset(stream: u32) -> Bytes {
    const CANCEL: u32 = 5;
    control(RST_STREAM, &[stream.to_be_bytes(), CANCEL.to_be_bytes()].concat())
}

/// Accepts a stream. The block of no headers is stored, not compressed, and followed by an empty one, which makes the
/// reader hand out what it has; the first of a session opens the stream of blocks.
pub(super) fn accept(stream: u32, first: bool) -> Bytes {
    const OPENING: [u8; 2] = [0x78, 0x01];
    const NO_HEADERS: [u8; 14] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let mut body = stream.to_be_bytes().to_vec();
    if first {
        body.extend_from_slice(&OPENING);
    }
    body.extend_from_slice(&NO_HEADERS);
    control(SYN_REPLY, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    /// What a client sends to open a stream.
    fn open(deflate: &mut Compress, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut plain = u32::try_from(headers.len()).expect("few").to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(k, v)| [*k, *v]) {
            plain.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut body = [stream.to_be_bytes().as_slice(), &[0; 6]].concat();
        let mut block = Vec::with_capacity(4_096);
        deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).expect("compressed");
        body.extend_from_slice(&block);
        control(SYN_STREAM, &body)
    }

    #[test]
    fn streams_data_and_ends() {
        let mut deflate = Compress::new(Compression::default(), true);
        // The checksum that SPDY's dictionary has.
        assert_eq!(deflate.set_dictionary(&dictionary()).expect("set"), 0xe3c6_a7c2);
        let mut decoder = Decoder::new();
        let all = [
            open(&mut deflate, 1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            open(&mut deflate, 3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            data(3, b"hello", false),
            pong(7),
            data(3, b"", true),
            reset(1),
        ]
        .concat();
        let mut frames = Vec::new();
        // However the bytes come, the frames are the same.
        for piece in all.chunks(3) {
            decoder.push(piece);
            while let Some(frame) = decoder.next().expect("well formed") {
                frames.push(frame);
            }
        }
        let header = |frame: &Frame, name: &str| match frame {
            Frame::Open { headers, .. } => headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()),
            _ => None,
        };
        assert_eq!(header(&frames[0], "streamtype").as_deref(), Some("error"));
        assert_eq!(header(&frames[1], "requestid").as_deref(), Some("0"));
        assert_eq!(
            frames[2..],
            [
                Frame::Data { stream: 3, bytes: Bytes::from_static(b"hello"), last: false },
                Frame::Ping(7),
                Frame::Data { stream: 3, bytes: Bytes::new(), last: true },
                Frame::Reset { stream: 1 },
            ]
        );
    }

    #[test]
    fn what_is_no_spdy_ends_the_session() {
        let mut decoder = Decoder::new();
        decoder.push(&control(SYN_STREAM, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]));
        assert_eq!(decoder.next(), Err(SpdyError::Malformed));
        let mut decoder = Decoder::new();
        decoder.push(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next(), Err(SpdyError::TooLarge));
    }
}

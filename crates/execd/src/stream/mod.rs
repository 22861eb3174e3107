//! The stream of an execution as the published SDKs read it: bare JSON objects, each followed by two
//! line feeds. On request as standard server-sent events, as base64, or as nothing but the bytes.

mod body;
mod cursor;
mod event;
mod lines;
mod raw;

pub use body::{Encoding, Form, fixed, live};
pub use cursor::Cursor;
pub use event::{Event, Framing, encode};
pub use lines::{Lines, Piece, whole};
pub use raw::raw;

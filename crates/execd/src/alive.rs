//! `execd alive`: whether an execd answers in this container already.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer.
const LONGEST: Duration = Duration::from_secs(2);

/// Asks the port for its claim: only an execd answers that.
pub async fn alive(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /v1/claim HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        stream.take(16 << 10).read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        Some(text.starts_with("HTTP/1.1 200") && text.contains("\"claimed\":"))
    };
    timeout(LONGEST, ask).await.ok().flatten().unwrap_or(false)
}

//! An upgraded connection: bytes both ways, so that frames of any size and kind pass as they are.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The handshake's second half takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Joins two upgraded connections until one ends, both are silent for `idle`, or the server stops.
pub async fn run(caller: OnUpgrade, sandbox: OnUpgrade, idle: Duration, stop: CancellationToken, metrics: Metrics) {
    let both = async { tokio::try_join!(caller, sandbox) };
    let Ok(Ok((caller, sandbox))) = tokio::time::timeout(HANDSHAKE, both).await else {
        tracing::debug!("an upgrade did not come about");
        return;
    };
    let caller = Metered { io: TokioIo::new(caller), bytes: metrics.to_sandboxes, moved: Arc::default() };
    let sandbox = Metered { io: TokioIo::new(sandbox), bytes: metrics.from_sandboxes, moved: caller.moved.clone() };
    join(caller, sandbox, idle, stop).await;
}

async fn join<A, B>(mut a: Metered<A>, mut b: Metered<B>, idle: Duration, stop: CancellationToken)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = a.moved.clone();
    let silence = async {
        let mut before = None;
        loop {
            let now = moved.load(Ordering::Relaxed);
            if before == Some(now) {
                return;
            }
            before = Some(now);
            tokio::time::sleep(idle).await;
        }
    };
    tokio::select! {
        _ = copy_bidirectional(&mut a, &mut b) => {}
        () = silence => tracing::debug!("a tunnel was silent for too long"),
        () = stop.cancelled() => {}
    }
}

/// Counts what is read: for the metrics, and for both sides together to tell silence.
struct Metered<T> {
    io: T,
    bytes: Counter,
    moved: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        self.bytes.inc_by(read);
        self.moved.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn pair<T>(a: T, b: T) -> (Metered<T>, Metered<T>) {
        let moved = Arc::<AtomicU64>::default();
        let metered = |io| Metered { io, bytes: Counter::default(), moved: moved.clone() };
        (metered(a), metered(b))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_both_ways_and_silence_ends_it() {
        let (mut left, a) = duplex(64);
        let (b, mut right) = duplex(64);
        let (a, b) = pair(a, b);
        let from_left = a.bytes.clone();
        let joined = tokio::spawn(join(a, b, Duration::from_secs(60), CancellationToken::new()));
        left.write_all(b"hello").await.unwrap();
        right.write_all(b"world").await.unwrap();
        let mut buffer = [0; 5];
        right.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        left.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"world");
        assert_eq!(from_left.get(), 5);
        tokio::time::timeout(Duration::from_secs(130), joined).await.unwrap().unwrap();
        assert_eq!(left.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_servers_end_ends_it() {
        let ((_left, a), (b, _right)) = (duplex(64), duplex(64));
        let stop = CancellationToken::new();
        stop.cancel();
        let (a, b) = pair(a, b);
        join(a, b, Duration::from_secs(60), stop).await;
    }
}

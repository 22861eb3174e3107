//! The network between one process and everything else: latency, loss, cuts, pauses, and the end of
//! the process between any two messages.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use local_api::ApiService;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::Service;

/// What becomes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteFault {
    /// The process ends before the write reaches the API.
    CrashBefore,
    /// The process ends before it learns that the write was made.
    CrashAfter,
    /// The API answers with this status and does nothing.
    Refused(u16),
    /// The API does it, and the answer is 504.
    Lost,
    /// The API does it; nothing is answered for 40 s, which is longer than any caller waits.
    Silent,
    /// The write is held back this many milliseconds, as by a pause after the last check.
    Late(u32),
}

/// One process, as the network knows it.
pub struct Peer {
    /// Name in traces.
    pub name: String,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    dead: bool,
    held_until: Option<Instant>,
    rng: fastrand::Rng,
    writes: u64,
    faults: Vec<(u32, WriteFault)>,
    /// Watches whose path has this word are held until then.
    delays: Vec<(&'static str, Instant)>,
    /// Counts cuts; a watch opened before the last one breaks.
    cuts: u64,
    expired: u64,
}

impl Peer {
    /// A process whose latencies follow from `rng`.
    pub fn new(name: impl Into<String>, rng: fastrand::Rng) -> Arc<Self> {
        let state = State {
            dead: false,
            held_until: None,
            rng,
            writes: 0,
            faults: Vec::new(),
            delays: Vec::new(),
            cuts: 0,
            expired: 0,
        };
        Arc::new(Self { name: name.into(), state: Mutex::new(state), changed: Notify::new() })
    }

    /// Ends the process as SIGKILL would: nothing goes out or comes in any more.
    pub fn kill(&self) {
        self.state.lock().dead = true;
        self.changed.notify_waiters();
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Resolves when it has ended.
    pub async fn died(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_dead() {
                return;
            }
            changed.await;
        }
    }

    /// Stops the process for a while: SIGSTOP, then SIGCONT.
    pub fn hold(&self, time: Duration) {
        self.state.lock().held_until = Some(Instant::now() + time);
    }

    /// Arms a fault for the write after `skip` others.
    pub fn arm(&self, skip: u32, fault: WriteFault) {
        self.state.lock().faults.push((skip, fault));
    }

    /// Holds the watches of a resource back.
    pub fn delay(&self, resource: &'static str, time: Duration) {
        self.state.lock().delays.push((resource, Instant::now() + time));
    }

    /// Cuts every watch.
    pub fn cut(&self) {
        self.state.lock().cuts += 1;
        self.changed.notify_waiters();
    }

    /// Ends every watch with 410.
    pub fn expire(&self) {
        self.state.lock().expired += 1;
        self.changed.notify_waiters();
    }

    /// Takes all faults back.
    pub fn calm(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.delays.clear();
        state.held_until = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Writes that it has sent.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// One message underway: latency, pause, or for ever.
    pub async fn pass(&self) {
        let latency = Duration::from_micros(self.state.lock().rng.u64(100..3_000));
        tokio::time::sleep(latency).await;
        loop {
            let until = {
                let state = self.state.lock();
                if state.dead {
                    None
                } else {
                    match state.held_until {
                        Some(until) if until > Instant::now() => Some(until),
                        _ => return,
                    }
                }
            };
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => pending().await,
            }
        }
    }

    fn fault(&self) -> Option<WriteFault> {
        let mut state = self.state.lock();
        state.writes += 1;
        let due = state.faults.iter().position(|(skip, _)| *skip == 0);
        state.faults.iter_mut().for_each(|(skip, _)| *skip = skip.saturating_sub(1));
        due.map(|at| state.faults.remove(at).1)
    }

    fn delayed(&self, path: &str) -> Option<Instant> {
        let state = self.state.lock();
        let until = state.delays.iter().filter(|(word, _)| path.contains(word)).map(|(_, until)| *until).max();
        until.max(state.held_until).filter(|until| *until > Instant::now())
    }

    fn breaks(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.cuts, state.expired)
    }
}

/// The API as one process reaches it.
#[derive(Clone)]
pub struct Gate {
    api: ApiService,
    peer: Arc<Peer>,
}

impl Gate {
    /// A client of the API through the network of a process.
    pub fn client(api: &local_api::Api, peer: Arc<Peer>) -> kube::Client {
        kube::Client::new(Self { api: api.service(), peer }, "default")
    }
}

/// Body of an answer that has passed the network.
pub type GateBody = Pin<Box<dyn Body<Data = Bytes, Error = std::io::Error> + Send>>;

impl<B> Service<Request<B>> for Gate
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<GateBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut api, peer) = (self.api.clone(), self.peer.clone());
        Box::pin(async move {
            peer.pass().await;
            let path = request.uri().path().to_owned();
            let write = ![Method::GET, Method::HEAD].contains(request.method());
            let watch = request.uri().query().is_some_and(|q| q.contains("watch="));
            // Leases and events are the controller's own business: losing them is covered by holding and killing.
            let fault =
                if write && !path.contains("/leases") && !path.contains("/events") { peer.fault() } else { None };
            match fault {
                Some(WriteFault::CrashBefore) => {
                    peer.kill();
                    pending::<()>().await;
                }
                Some(WriteFault::Refused(code)) => return Ok(refusal(code)),
                Some(WriteFault::Late(ms)) => tokio::time::sleep(Duration::from_millis(u64::from(ms))).await,
                _ => {}
            }
            let answer = api.call(request).await?;
            match fault {
                Some(WriteFault::CrashAfter) => {
                    peer.kill();
                    pending::<()>().await;
                }
                Some(WriteFault::Silent) => tokio::time::sleep(Duration::from_secs(40)).await,
                Some(WriteFault::Lost) => return Ok(refusal(504)),
                _ => {}
            }
            peer.pass().await;
            Ok(answer.map(|body| if watch { follow(peer, path, body) } else { plain(body) }))
        })
    }
}

fn plain(body: local_api::ApiBody) -> GateBody {
    Box::pin(body.map_err(std::io::Error::other))
}

/// A watch under way: delayed, cut, or ended with its process.
fn follow(peer: Arc<Peer>, path: String, body: local_api::ApiBody) -> GateBody {
    let opened = peer.breaks();
    let frames = futures::stream::unfold(Some((peer, path, body)), move |state| async move {
        let (peer, path, mut body) = state?;
        loop {
            if peer.is_dead() {
                pending::<()>().await;
            }
            let (cuts, expired) = peer.breaks();
            if cuts != opened.0 {
                return Some((Err(std::io::Error::other("the connection was cut")), None));
            }
            if expired != opened.1 {
                return Some((Ok(Frame::data(too_old())), None));
            }
            if let Some(until) = peer.delayed(&path) {
                tokio::time::sleep_until(until).await;
                continue;
            }
            tokio::select! {
                biased;
                () = peer.changed.notified() => {}
                frame = body.frame() => {
                    peer.pass().await;
                    let frame = frame?.map_err(std::io::Error::other);
                    // What arrived while the watch was held back waits with it.
                    while let Some(until) = peer.delayed(&path) {
                        tokio::time::sleep_until(until).await;
                    }
                    return Some((frame, Some((peer, path, body))));
                }
            }
        }
    });
    Box::pin(StreamBody::new(frames.boxed()))
}

fn too_old() -> Bytes {
    let event = serde_json::json!({"type": "ERROR", "object": status(410)});
    Bytes::from(format!("{event}\n"))
}

fn refusal(code: u16) -> Response<GateBody> {
    let body = Full::new(Bytes::from(status(code).to_string()));
    let mut answer =
        Response::new(Box::pin(body.map_err(|never: Infallible| -> std::io::Error { match never {} })) as GateBody);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn status(code: u16) -> serde_json::Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the story says {code}"), "reason": reason, "code": code,
    })
}

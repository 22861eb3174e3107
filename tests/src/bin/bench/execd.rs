//! An execd: commands, streams, files, and what it weighs. Any execd can be measured by its address; what
//! only ours has is left out where the answer says so.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use e2e::execd::Execd;
use futures::future::try_join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::figures::{Figure, machine, table};

/// What is measured.
#[derive(Args)]
pub struct Options {
    /// Address of a running execd, as http://HOST:PORT; its own is started when absent.
    #[arg(long)]
    target: Option<String>,
    /// Access token of the running execd.
    #[arg(long, requires = "target")]
    token: Option<String>,
    /// The binary to start.
    #[arg(long, required_unless_present = "target")]
    binary: Option<PathBuf>,
    /// Runs of each figure.
    #[arg(long, default_value_t = 1000)]
    runs: u32,
    /// Bytes of files and of output, in MiB.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Idle streams that are held at once.
    #[arg(long, default_value_t = 1000)]
    streams: usize,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    println!("{}\n", machine());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(options))
}

struct Target {
    base: String,
    client: Client,
    process: Option<Process>,
}

struct Process {
    execd: Execd,
    binary: PathBuf,
}

impl Process {
    /// A line of the process's status in the kernel's words.
    fn status(&self, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.execd.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("the kernel tells no such thing")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    fn resident(&self) -> Result<f64> {
        Ok(self.status("VmRSS:")? as f64 / 1024.0)
    }
}

impl Target {
    async fn reach(options: &Options) -> Result<Self> {
        // The client wants a provider even for plain HTTP; one that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = reqwest::header::HeaderMap::new();
        if let Some(token) = &options.token {
            headers.insert("X-EXECD-ACCESS-TOKEN", token.parse()?);
        }
        let client = Client::builder().default_headers(headers).build()?;
        let (base, process) = match (&options.target, &options.binary) {
            (Some(target), _) => (target.trim_end_matches('/').to_owned(), None),
            (None, Some(binary)) => {
                let execd = Execd::start(binary)?;
                (format!("http://{}", execd.address), Some(Process { execd, binary: binary.clone() }))
            }
            (None, None) => bail!("give --target or --binary"),
        };
        let this = Self { base, client, process };
        let until = Instant::now() + Duration::from_secs(30);
        while this.client.get(this.url("/ping")).send().await.is_err() {
            if Instant::now() > until {
                bail!("no execd answers at {}", this.base);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(this)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        Ok(self.client.post(self.url(path)).json(body).send().await?.error_for_status()?)
    }
}

async fn measure(options: &Options) -> Result<()> {
    let target = Target::reach(options).await?;
    let idle = target.process.as_ref().map(Process::resident).transpose()?;
    let mut figures = vec![commands(&target, options.runs).await?];
    figures.push(pings(&target, options.runs).await?);
    figures.extend(first_bytes(&target, options.runs.min(300)).await?);
    println!("{}", table(&figures));
    let threads = target.process.as_ref().map(|p| p.status("Threads:")).transpose()?;
    let mut rates = Table::new();
    rates.load_style(UTF8_BORDERS_ONLY).set_header(["rate", "MB/s"]);
    let bytes = options.mebibytes << 20;
    for (name, rate) in [
        ("text through a stream", Some(text(&target, bytes).await?)),
        ("binary through a stream (raw)", raw(&target, bytes).await?),
        ("binary through a stream (base64)", base64(&target, bytes / 4).await?),
    ] {
        rates.add_row([name.to_owned(), rate.map_or("not offered".to_owned(), |rate| format!("{rate:.0}"))]);
    }
    let (upload, download) = files(&target, bytes).await?;
    rates.add_row(["upload".to_owned(), format!("{upload:.0}")]);
    rates.add_row(["download".to_owned(), format!("{download:.0}")]);
    println!("{rates}");
    let streams = streams(&target, options.streams).await?;
    if let (Some(process), Some(idle), Some(threads)) = (&target.process, idle, threads) {
        let mut weights = Table::new();
        weights.load_style(UTF8_BORDERS_ONLY).set_header(["weight", "MiB"]);
        let size = std::fs::metadata(&process.binary)?.len() as f64 / f64::from(1 << 20);
        weights.add_row(["binary".to_owned(), format!("{size:.1}")]);
        weights.add_row(["resident, idle".to_owned(), format!("{idle:.1}")]);
        if let Some((before, with)) = streams {
            weights.add_row([format!("{} idle streams", options.streams), format!("{:.1}", with - before)]);
        }
        println!("{weights}\nthreads: {threads} after commands, {} now", process.status("Threads:")?);
    }
    Ok(())
}

/// From the request to the end of the stream of `true`.
async fn commands(target: &Target, runs: u32) -> Result<Figure> {
    let mut figure = Figure::new("true on an open connection")?;
    for _ in 0..runs {
        let begun = Instant::now();
        let stream = target.post("/command", &json!({"command": "true"})).await?.text().await?;
        figure.add(begun.elapsed());
        if !stream.contains("execution_complete") {
            bail!("true did not end well: {stream}");
        }
    }
    Ok(figure)
}

async fn pings(target: &Target, runs: u32) -> Result<Figure> {
    let mut figure = Figure::new("ping")?;
    for _ in 0..runs {
        let begun = Instant::now();
        target.client.get(target.url("/ping")).send().await?.error_for_status()?;
        figure.add(begun.elapsed());
    }
    Ok(figure)
}

/// From the write of a line, by its own clock, to its arrival here; only where both have one clock and the
/// sandbox has bash.
async fn first_bytes(target: &Target, runs: u32) -> Result<Option<Figure>> {
    let command = format!("for i in $(seq {runs}); do echo $EPOCHREALTIME; sleep 0.005; done");
    let mut answer = target.post("/command", &json!({"command": command})).await?;
    let mut figure = Figure::new("written to arrived")?;
    let (mut seen, mut any) = (Vec::new(), false);
    while let Some(bytes) = answer.chunk().await? {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        seen.extend_from_slice(&bytes);
        while let Some(at) = seen.windows(2).position(|pair| pair == b"\n\n") {
            let event: Value = serde_json::from_slice(seen.get(..at).unwrap_or_default())?;
            seen.drain(..at + 2);
            let written =
                event["text"].as_str().filter(|_| event["type"] == "stdout").and_then(|t| t.parse::<f64>().ok());
            if let Some(took) = written.map(|written| now - written).filter(|took| (0.0..10.0).contains(took)) {
                figure.add(Duration::from_secs_f64(took));
                any = true;
            }
        }
    }
    Ok(any.then_some(figure))
}

fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

async fn drain(mut answer: Response) -> Result<(u64, Vec<u8>)> {
    let (mut count, mut last) = (0, Vec::new());
    while let Some(bytes) = answer.chunk().await? {
        count += bytes.len() as u64;
        last.extend_from_slice(&bytes);
        let spare = last.len().saturating_sub(4096);
        last.drain(..spare);
    }
    Ok((count, last))
}

fn well(last: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(last);
    if !text.contains("\"type\":\"execution_complete\"") {
        bail!("the stream did not end well: {}", text.lines().rev().find(|l| !l.is_empty()).unwrap_or_default());
    }
    Ok(())
}

async fn text(target: &Target, bytes: u64) -> Result<f64> {
    let line = "x".repeat(99);
    let begun = Instant::now();
    let answer = target.post("/command", &json!({"command": format!("yes {line} | head -c {bytes}")})).await?;
    well(&drain(answer).await?.1)?;
    Ok(rate(bytes, begun))
}

/// Bytes as they are; only ours has that.
async fn raw(target: &Target, bytes: u64) -> Result<Option<f64>> {
    let begun = Instant::now();
    let command = json!({"command": format!("head -c {bytes} /dev/zero"), "background": true});
    let started = target.post("/command", &command).await?.text().await?;
    let init: Value = serde_json::from_str(started.lines().next().unwrap_or_default())?;
    let path = format!("/command/{}/output?encoding=raw", init["text"].as_str().unwrap_or_default());
    let answer = target.client.get(target.url(&path)).send().await?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    let (count, _) = drain(answer).await?;
    if count != bytes {
        bail!("{count} bytes of {bytes} came");
    }
    Ok(Some(rate(bytes, begun)))
}

async fn base64(target: &Target, bytes: u64) -> Result<Option<f64>> {
    let begun = Instant::now();
    let command = json!({"command": format!("head -c {bytes} /dev/zero")});
    let (count, last) = drain(target.post("/command?encoding=base64", &command).await?).await?;
    // An execd without this form sends text, which is longer.
    if count < bytes || count > bytes * 2 {
        return Ok(None);
    }
    well(&last)?;
    Ok(Some(rate(bytes, begun)))
}

async fn files(target: &Target, bytes: u64) -> Result<(f64, f64)> {
    let path = match &target.process {
        Some(process) => process.execd.dir.path().join("file").display().to_string(),
        None => "/tmp/.opensandbox-bench".to_owned(),
    };
    // Not zeros: those would be left out of the file.
    let piece: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let pieces = (0..bytes >> 20).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let form = Form::new()
        .part("metadata", Part::text(json!({"path": path}).to_string()).file_name("metadata"))
        .part("file", Part::stream(body).file_name("file"));
    let begun = Instant::now();
    target.client.post(target.url("/files/upload")).multipart(form).send().await?.error_for_status()?;
    let upload = rate(bytes, begun);
    let begun = Instant::now();
    let answer = target.client.get(target.url("/files/download")).query(&[("path", &path)]).send().await?;
    let (count, _) = drain(answer.error_for_status()?).await?;
    let download = rate(count, begun);
    target.client.delete(target.url("/files")).query(&[("path", &path)]).send().await?.error_for_status()?;
    Ok((upload, download))
}

/// Resident memory before, and with so many streams of commands that are silent, in MiB.
async fn streams(target: &Target, count: usize) -> Result<Option<(f64, f64)>> {
    let Some(process) = &target.process else { return Ok(None) };
    let before = process.resident()?;
    let sleep = json!({"argv": ["sleep", "600"]});
    let mut open = Vec::new();
    for _ in 0..count.div_ceil(50) {
        let some = (0..50).map(|_| target.post("/command", &sleep));
        open.extend(try_join_all(some).await?);
    }
    let with = process.resident()?;
    let ids = try_join_all(open.iter_mut().map(async |answer| anyhow::Ok(answer.chunk().await?))).await?;
    for init in ids.into_iter().flatten() {
        let init: Value = serde_json::from_slice(init.trim_ascii()).unwrap_or_default();
        let id = init["text"].as_str().unwrap_or_default();
        target.client.delete(target.url(&format!("/command?id={id}"))).send().await?;
    }
    Ok(Some((before, with)))
}

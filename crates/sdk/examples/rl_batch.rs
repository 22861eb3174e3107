//! A batch of rollouts: many sandboxes out of the pool at once, one task in each, a result from each.
//!
//! Usage: `cargo run -p opensandbox --example rl_batch -- [POOL] [ROLLOUTS]`, with the connection in the environment.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use opensandbox::{Client, RunCommand};

/// Rollouts at the same time.
const PARALLEL: usize = 8;

struct Rollout {
    seed: usize,
    reward: f64,
    took: Duration,
}

async fn rollout(client: &Client, pool: &str, seed: usize) -> anyhow::Result<Rollout> {
    let begun = Instant::now();
    let create = opensandbox::Sandbox::from_pool(pool).client(client).env("SEED", seed.to_string());
    // Whatever happens below, also a timeout, the pod goes back.
    let sandbox = create.timeout(Duration::from_secs(300)).create().await?.kill_on_drop();
    sandbox.files().write("/tmp/policy.sh", "echo $(( SEED * SEED % 7 ))\n").await?;
    let run = RunCommand::shell("sh /tmp/policy.sh > /tmp/reward && cat /tmp/reward").timeout(Duration::from_secs(30));
    let execution = sandbox.commands().run_with(run).await?;
    anyhow::ensure!(execution.success(), "rollout {seed} failed: {}", execution.stderr_text());
    let reward = execution.stdout_text().trim().parse()?;
    sandbox.kill().await?;
    Ok(Rollout { seed, reward, took: begun.elapsed() })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let pool = args.next().unwrap_or_else(|| "agent-pool".to_owned());
    let count: usize = args.next().map_or(Ok(16), |n| n.parse())?;
    let client = Client::from_env()?;
    let outcomes: Vec<_> =
        stream::iter(0..count).map(|seed| rollout(&client, &pool, seed)).buffer_unordered(PARALLEL).collect().await;
    let mut total = 0.0;
    for outcome in outcomes {
        let Rollout { seed, reward, took } = outcome?;
        println!("rollout {seed}: reward {reward} after {took:?}");
        total += reward;
    }
    println!("mean reward {}", total / count as f64);
    Ok(())
}

//! SIGKILL of the platform: sandboxes live on, and what ended meanwhile says why.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::platform::Platform;
use futures::future::try_join_all;
use opensandbox::Sandbox;

use crate::{block_on, pools, run};

#[test]
fn sandboxes_outlive_a_killed_platform() -> Result<()> {
    need!("kubectl");
    let mut platform = Platform::start()?;
    block_on(async {
        pools::warm(&platform, &pools::seed_like("kept", (4, 8), (4, 20))?, "kept", 4).await?;
        let create = |n: usize| {
            Sandbox::builder("nginx:latest")
                .pool("kept")
                .env("AGENT_ID", format!("agent-{n}"))
                .timeout(Duration::from_secs(600))
                .connection(platform.connection())
                .create()
        };
        let sandboxes = try_join_all((0..4).map(create)).await?;
        let before = try_join_all(sandboxes.iter().map(|s| run(s, "echo $AGENT_ID; hostname"))).await?;

        platform.crash()?;
        // What ends while the platform is away: the first sandbox loses its container.
        let _ = tokio::time::timeout(Duration::from_secs(10), sandboxes[0].commands().run("kill -9 -1")).await;
        platform.start_again()?;

        for (n, sandbox) in sandboxes.iter().enumerate().skip(1) {
            let found = opensandbox::Client::new(platform.connection())?.connect(sandbox.id()).await?;
            let after = found.commands().run("echo $AGENT_ID; hostname").await?;
            ensure!(after.stdout_text() == before[n].stdout_text(), "sandbox {n} has changed: {after:?}");
        }
        try_join_all(sandboxes.iter().map(|s| {
            let id = s.id().to_owned();
            let connection = platform.connection();
            async move { opensandbox::Client::new(connection)?.kill(&id).await }
        }))
        .await
        .context("cannot kill the sandboxes")?;
        Ok(())
    })
}

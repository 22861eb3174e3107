//! `osb explain`: where a sandbox's time went, what it waits for, and how it ended.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use opensandbox::types::Explanation;

use crate::{
    cli::Globals,
    connection,
    output::{Format, Printer, line, plain_table, print_table},
};

/// Options of `osb explain`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the sandbox; also for a while after its end
    sandbox: String,
}

/// Runs it.
pub async fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    let printer = Printer::structured(globals.output)?;
    let (client, _) = connection::connect(globals)?;
    let explained = client.explain(&options.sandbox).await?;
    match globals.output {
        None | Some(Format::Table) => print(&explained)?,
        _ => printer.value(&explained)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(told: &Explanation) -> Result<()> {
    let mut facts = vec![("id", told.id.as_str().to_owned()), ("state", told.status.state.clone())];
    facts.extend(told.status.message.clone().map(|message| ("message", message)));
    facts.extend(told.from.as_ref().map(|from| ("from", format!("{} {from}", told.source))));
    if let Some(pool) = &told.pool {
        let figures = format!("{} of {} pods, {} idle, {} held", pool.total, pool.max, pool.available, pool.allocated);
        facts.push(("pool", figures));
        facts.extend(pool.conditions.iter().map(|condition| ("", condition.clone())));
    }
    if let Some(pod) = &told.pod {
        let node = pod.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        facts.push(("pod", format!("{}{node}", pod.name)));
    }
    if let Some(waiting) = &told.waiting {
        facts.push(("waits for", format!("{}: {}", waiting.what, waiting.why)));
        facts.extend(waiting.action.clone().map(|action| ("do", action)));
    }
    if let Some(end) = &told.obituary {
        let code = end.exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
        facts.push(("ended", format!("{}: {}{code}", end.reason, end.message)));
    }
    let mut table = plain_table();
    table.add_rows(facts.into_iter().map(|(name, value)| [name.to_owned(), value]));
    print_table(&table)?;
    if !told.timeline.is_empty() {
        line("")?;
        let mut table = plain_table();
        table.set_header(["STEP", "AT", "TOOK", "DETAIL"]);
        table.add_rows(told.timeline.iter().map(|step| {
            let took = step.took_ms.map_or_else(|| "-".to_owned(), duration);
            [step.name.clone(), step.at.to_string(), took, step.detail.clone().unwrap_or_default()]
        }));
        print_table(&table)?;
    }
    if !told.events.is_empty() {
        line("")?;
        let mut table = plain_table();
        table.set_header(["EVENT", "AT", "OBJECT", "MESSAGE"]);
        table.add_rows(told.events.iter().map(|event| {
            let at = event.at.map(|at| at.to_string()).unwrap_or_default();
            let times = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
            [event.reason.clone(), at, event.object.clone(), format!("{}{times}", event.message)]
        }));
        print_table(&table)?;
    }
    Ok(())
}

/// Milliseconds as people read them.
fn duration(milliseconds: f64) -> String {
    if milliseconds < 1e3 { format!("{milliseconds:.1} ms") } else { format!("{:.1} s", milliseconds / 1e3) }
}

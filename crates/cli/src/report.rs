//! Errors for people: what happened, the code, what to do next; and exit codes for programs.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use anyhow::Error;

use crate::output::Unsupported;

/// Wrong usage.
const USAGE: u8 = 2;
/// The reader of our output has gone, as if SIGPIPE had ended the process.
const PIPE: u8 = 141;

/// The exit code of the process; prints the error, if there is one.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code,
        Err(error) => error,
    };
    let broken_pipe = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    if error.downcast_ref::<opensandbox::Error>().is_none() && error.chain().any(broken_pipe) {
        return ExitCode::from(PIPE);
    }
    // Nobody is left to be told when this fails too.
    let _ = anstream::stderr().lock().write_all(render(&error).as_bytes());
    if error.is::<Unsupported>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// The message with its causes, the server's code, and a hint.
fn render(error: &Error) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let ours = error.downcast_ref::<opensandbox::Error>();
    let refusal = ours.and_then(opensandbox::Error::api);
    let mut text = format!("{red}error{red:#}: ");
    match refusal {
        Some(refusal) => text += &format!("{}: {}\n", refusal.operation, refusal.message),
        None => text += &format!("{error}\n"),
    }
    // Between our words and the system's a transport error has several layers of its own.
    let innermost = ours.is_some();
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).filter(|_| refusal.is_none()).collect();
    for cause in causes.iter().skip(if innermost { causes.len().saturating_sub(1) } else { 0 }) {
        text += &format!("  cause: {cause}\n");
    }
    if let Some(refusal) = refusal {
        text += &format!("  code: {} (status {})\n", refusal.code, refusal.status);
    }
    if let Some(id) = ours.and_then(opensandbox::Error::request_id).filter(|_| refusal.is_some()) {
        text += &format!("  request: {id}\n");
    }
    if let Some(hint) = ours.and_then(hint) {
        text += &format!("{cyan}hint{cyan:#}: {hint}\n");
    }
    text
}

/// What to do next.
fn hint(error: &opensandbox::Error) -> Option<String> {
    use opensandbox::Error;
    let hint = match error {
        Error::Connection { target, .. } => {
            format!("nothing answers at {target}; start a platform with `osb up`, or name another with --domain")
        }
        Error::Timeout { .. } => "give it more time with --request-timeout, or look at the platform's load".to_owned(),
        Error::StreamInterrupted { execution_id: Some(id), .. } => {
            format!("the command may still run; ask with `osb command status SANDBOX {id}`")
        }
        _ => {
            let action = error.code()?.action();
            match error.retry_after() {
                Some(after) => action.replace("Retry-After", &format!("{} s", after.as_secs())),
                None => action.to_owned(),
            }
        }
    };
    Some(decapitalised(&hint))
}

fn decapitalised(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

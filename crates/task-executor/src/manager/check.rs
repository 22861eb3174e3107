//! Whether a task can be run as it was asked for.

use api_types::ErrorCode;
use api_types::tasks::Task;

use crate::claim::check_env;
use crate::error::ApiError;
use crate::store::check_name;

/// Refuses what can't be run, naming the member.
pub fn task(task: &Task) -> Result<(), ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidTask, format!("task {:?}: {message}", task.name));
    check_name(&task.name).map_err(|e| invalid(e.to_string()))?;
    let Some(process) = &task.process else {
        if task.pod_template_spec.is_some() {
            let message = format!("task {:?}: podTemplateSpec is not run here; use process", task.name);
            return Err(ApiError::new(ErrorCode::TaskKindUnsupported, message));
        }
        return Err(invalid("process is missing".into()));
    };
    let argv: Vec<&String> = process.command.iter().chain(&process.args).collect();
    match argv.first() {
        None => return Err(invalid("process.command is empty".into())),
        Some(program) if program.is_empty() => return Err(invalid("the program's name is empty".into())),
        _ => {}
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return Err(invalid("process.command and args must hold no NUL".into()));
    }
    check_env(process.env.iter().map(|e| (&e.name, &e.value))).map_err(|e| invalid(format!("process.env: {e}")))?;
    if process.working_dir.as_deref().is_some_and(|d| d.contains('\0')) {
        return Err(invalid("process.workingDir must hold no NUL".into()));
    }
    if process.timeout_seconds.is_some_and(|s| s < 0) {
        return Err(invalid("process.timeoutSeconds must not be negative".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_member_is_named() {
        for (json, code, word) in [
            (r#"{"name":"x"}"#, ErrorCode::InvalidTask, "process"),
            (r#"{"name":"x","podTemplateSpec":{}}"#, ErrorCode::TaskKindUnsupported, "podTemplateSpec"),
            (r#"{"name":"../x","process":{"command":["a"]}}"#, ErrorCode::InvalidTask, "climbs"),
            (r#"{"name":"x","process":{}}"#, ErrorCode::InvalidTask, "command"),
            (r#"{"name":"x","process":{"command":[""]}}"#, ErrorCode::InvalidTask, "program"),
            (r#"{"name":"x","process":{"command":["a\u0000"]}}"#, ErrorCode::InvalidTask, "NUL"),
            (
                r#"{"name":"x","process":{"command":["a"],"env":[{"name":"A=B","value":""}]}}"#,
                ErrorCode::InvalidTask,
                "A=B",
            ),
            (
                r#"{"name":"x","process":{"command":["a"],"timeoutSeconds":-1}}"#,
                ErrorCode::InvalidTask,
                "timeoutSeconds",
            ),
        ] {
            let error = task(&serde_json::from_str(json).unwrap()).unwrap_err();
            assert_eq!(error.code, code, "{json}");
            assert!(error.message.contains(word), "{json}: {}", error.message);
        }
        assert_eq!(task(&serde_json::from_str(r#"{"name":"x","process":{"args":["a"]}}"#).unwrap()), Ok(()));
    }
}

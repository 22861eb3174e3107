//! `EXECD_CLONE3_COMPAT`: container engines that answer `clone3` with "not permitted" instead of "no such
//! call" break programs that would fall back; this makes it the latter for all that is started here.

use std::os::unix::process::CommandExt;

use crate::sys;

/// Set for the second life of a daemon that was told to execute itself anew.
const APPLIED: &str = "_EXECD_CLONE3_COMPAT_APPLIED";

/// Does what the variable says.
///
/// # Errors
/// It says nothing that is known, or the system refuses.
pub fn apply(wanted: &str) -> Result<(), String> {
    let again = match wanted.to_ascii_lowercase().as_str() {
        "" | "0" | "false" | "off" | "no" => return Ok(()),
        "1" | "true" | "yes" | "on" => false,
        "reexec" => true,
        other => return Err(format!("EXECD_CLONE3_COMPAT: {other:?} is none of 1, 0 and reexec")),
    };
    if std::env::var_os(APPLIED).is_some() {
        return Ok(());
    }
    sys::deny_clone3().map_err(|e| format!("EXECD_CLONE3_COMPAT: {e}"))?;
    if again {
        let error =
            std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).env(APPLIED, "1").exec();
        return Err(format!("EXECD_CLONE3_COMPAT: cannot execute anew: {error}"));
    }
    Ok(())
}

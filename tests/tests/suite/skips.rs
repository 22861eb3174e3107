//! What a ground cannot do, as the documentation lists it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::Need;

use crate::cases;

const PAGE: &str = "docs/embedded-cluster.md";
const BEGIN: &str = "<!-- made from the suite's cases: begin -->\n";
const END: &str = "<!-- made from the suite's cases: end -->\n";

/// The lists as the documentation has them.
pub fn lists() -> String {
    let mut text = String::new();
    for (ground, lacks) in [
        ("the embedded cluster", Need::embedded as fn(Need) -> Option<&'static str>),
        ("a cluster", Need::cluster as fn(Need) -> Option<&'static str>),
    ] {
        let _ = writeln!(text, "Not run on {ground}:\n\n| case | reason |\n|---|---|");
        for case in cases::all() {
            if let Some(reason) = case.needs.iter().find_map(|need| lacks(*need)) {
                let _ = writeln!(text, "| `{}` | {reason} |", case.name);
            }
        }
        text.push('\n');
    }
    text
}

/// Fails unless the documentation has the lists; writes them there where `OPENSANDBOX_E2E_WRITE` is set.
pub fn documented() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE} has no place for the lists"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no end of the lists"))?;
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", lists());
    if wanted != text && std::env::var_os("OPENSANDBOX_E2E_WRITE").is_some() {
        std::fs::write(&page, wanted)?;
        return Ok(());
    }
    ensure!(
        wanted == text,
        "{PAGE} lists other skips than the suite has; \
         `OPENSANDBOX_E2E_WRITE=1 cargo test -p e2e --test suite skips` writes it anew"
    );
    Ok(())
}

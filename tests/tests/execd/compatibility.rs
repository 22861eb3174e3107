//! `docs/compatibility.md`, made of what the published SDKs said while they were driven. Each SDK has its own
//! section, between two marks; what else stands on the page is written by hand or by others.

use std::path::Path;
use std::sync::Mutex;

/// Environment variable that has the page written; without it, the page is compared.
const WRITE: &str = "COMPATIBILITY";

/// Tests of several SDKs run at once.
static PAGE: Mutex<()> = Mutex::new(());

/// Puts the rows of one SDK's output into its section, or demands that they stand there.
pub fn record(section: &str, title: &str, output: &str) {
    let rows = output.lines().filter_map(|line| line.strip_prefix("row\t"));
    let mut table = format!("### {title}\n\n| Half | Method | |\n|---|---|---|\n");
    for row in rows {
        table.push_str(&format!("| {} |\n", row.replace('\t', " | ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let _one_at_a_time = PAGE.lock().unwrap();
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("<!-- end {section} -->\n"));
    let (before, rest) = page.split_once(&begin).expect("the page has the section's first mark");
    let (old, after) = rest.split_once(&end).expect("the page has the section's last mark");
    if std::env::var_os(WRITE).is_some_and(|value| value == "write") {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        old, table,
        "docs/compatibility.md is not what this run found: {WRITE}=write cargo test --workspace --test execd"
    );
}

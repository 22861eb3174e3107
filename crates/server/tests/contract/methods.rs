//! Each operation has a method of the SDK, or a reason why none is needed.

use std::collections::BTreeMap;

use super::document::operations;

/// What calls an operation.
enum Called {
    /// A method of the crate `opensandbox`.
    By(&'static str),
    /// Nothing, because ...
    Not(&'static str),
}

/// Names a method that the compiler has to find.
macro_rules! by {
    ($method:path) => {{
        let _ = $method;
        Called::By(stringify!($method))
    }};
}

const PROBE: &str = "probes and people ask it, not programs";
const TEXT: &str = "text for people; a program asks explain";

fn table() -> BTreeMap<&'static str, Called> {
    use opensandbox::{Client, Pools, Sandbox, SandboxBuilder};
    BTreeMap::from([
        ("getHealth", Called::Not(PROBE)),
        ("getHealthz", Called::Not(PROBE)),
        ("getReadyz", Called::Not(PROBE)),
        ("getVersion", Called::Not(PROBE)),
        ("getDocs", Called::Not(PROBE)),
        ("getOpenApi", Called::Not(PROBE)),
        ("createSandbox", by!(SandboxBuilder::create)),
        ("listSandboxes", by!(Client::list)),
        ("getSandbox", by!(Client::get)),
        ("deleteSandbox", by!(Client::kill)),
        ("patchMetadata", by!(Client::patch_metadata)),
        ("renewExpiration", by!(Client::renew)),
        ("getEndpoint", by!(Client::endpoint)),
        ("getLogs", by!(Client::diagnostic_logs)),
        ("getEvents", by!(Client::diagnostic_events)),
        ("inspectPod", Called::Not(TEXT)),
        ("getSummary", Called::Not(TEXT)),
        ("watchSandbox", by!(Client::watch)),
        ("explainSandbox", by!(Client::explain)),
        ("listPools", by!(Pools::list)),
        ("getPool", by!(Pools::get)),
        ("createPool", by!(Pools::create)),
        ("updatePool", by!(Pools::update)),
        ("deletePool", by!(Pools::delete)),
        ("reportEvent", Called::Not("the server measures creates itself; it takes the published SDKs' reports")),
        ("proxy", by!(Sandbox::commands)),
    ])
}

#[test]
fn every_operation_has_a_method_or_a_reason_and_the_table_nothing_else() {
    let table = table();
    let mut used = Vec::new();
    for operation in operations() {
        if operation.refused() {
            assert!(!operation.codes(501).is_empty(), "{} is never answered and does not say so", operation.name());
            continue;
        }
        let name = if operation.path.contains("/proxy/") { "proxy" } else { operation.id.as_str() };
        let called = table.get_key_value(name).unwrap_or_else(|| panic!("no method calls {name}"));
        used.push(*called.0);
        let (Called::By(words) | Called::Not(words)) = called.1;
        assert!(!words.is_empty());
    }
    let unused: Vec<_> = table.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "no operation has the name {unused:?}");
}

//! Tables of create requests: what is taken, and what refusals say.

use serde_json::{Value, json};

use super::*;

fn run(body: Value) -> Result<Create, ApiError> {
    check(&serde_json::from_value(body).unwrap(), &Config { max_timeout: Some(86_400), ..Config::default() })
}

#[test]
fn what_the_published_sdk_sends_with_a_pool_is_taken_and_warned_of() {
    let create = run(json!({
        "image": {"uri": "python:3.11"}, "timeout": 600, "resourceLimits": {"cpu": "1", "memory": "2Gi"},
        "entrypoint": ["tail", "-f", "/dev/null"], "secureAccess": false, "env": {"A": "b", "N": null},
        "extensions": {"poolRef": " py-pool ", "opensandbox.extensions.team": "x"}
    }))
    .unwrap();
    assert_eq!(create.source, Source::Pool("py-pool".to_owned()));
    assert_eq!(create.env["N"], "");
    assert_eq!(create.annotations["opensandbox.io/extensions.team"], "x");
    assert_eq!(create.warnings.len(), 2, "{:?}", create.warnings);
    assert!(create.warnings[0].starts_with("image.uri:") && create.warnings[1].starts_with("resourceLimits:"));
}

#[test]
fn an_image_gets_its_resources() {
    let create =
        run(json!({"image": {"uri": "a"}, "entrypoint": ["x"], "resourceLimits": {"gpu": "2", "cpu": "500m"}}))
            .unwrap();
    let Source::Image(image) = create.source else { panic!("an image") };
    assert_eq!(image.limits["nvidia.com/gpu"], "2");
    assert_eq!(create.timeout, None);
}

#[test]
fn refusals_name_the_path() {
    let pool = |member: &str, value: Value| {
        let mut body = json!({"extensions": {"poolRef": "p"}});
        body[member] = value;
        body
    };
    let image = |member: &str, value: Value| {
        let mut body = json!({"image": {"uri": "a"}, "entrypoint": ["x"]});
        body[member] = value;
        body
    };
    let table = [
        (pool("timeout", json!(1)), "timeout: is 1 s; the shortest is 60 s"),
        (pool("timeout", json!(90_000)), "timeout: is 90000 s; the longest"),
        (pool("env", json!({"A=B": "x"})), "env[\"A=B\"]: "),
        (pool("env", json!({"": "x"})), "env[\"\"]: "),
        (pool("env", json!({"A": "x\u{0}"})), "env[\"A\"]: "),
        (pool("volumes", json!([{"name": "v"}])), "volumes: "),
        (pool("networkPolicy", json!({})), "networkPolicy: "),
        (pool("lifecycle", json!({})), "lifecycle: "),
        (pool("secureAccess", json!(true)), "secureAccess: "),
        (pool("snapshotId", json!("s")), "snapshotId: "),
        (pool("credentialProxy", json!({"enabled": true})), "credentialProxy.enabled: "),
        (pool("platform", json!({"os": "plan9", "arch": "amd64"})), "platform.os: "),
        (pool("platform", json!({"os": "linux", "arch": "vax"})), "platform.arch: "),
        (pool("entrypoint", json!([])), "entrypoint: "),
        (pool("entrypoint", json!([" "])), "entrypoint: "),
        (pool("entrypoint", json!(["a", "b\u{0}"])), "entrypoint[1]: "),
        (pool("metadata", json!({"opensandbox.io/id": "x"})), "metadata[\"opensandbox.io/id\"]: "),
        (pool("metadata", json!({"k": "a b"})), "metadata[\"k\"]: "),
        (pool("templateId", json!("t")), "templateId: "),
        (
            json!({"extensions": {"poolRef": "p", "access.renew.extend.seconds": "5"}}),
            "extensions[\"access.renew.extend.seconds\"]: ",
        ),
        (
            json!({"extensions": {"poolRef": "p", "opensandbox.extensions.a b": "5"}}),
            "extensions[\"opensandbox.extensions.a b\"]: ",
        ),
        (json!({}), "image.uri: "),
        (json!({"image": {"uri": " "}}), "image.uri: "),
        (json!({"image": {"uri": "a"}}), "entrypoint: "),
        (json!({"image": {"uri": "a", "auth": {"username": "u:v", "password": "p"}}}), "image.auth.username: "),
        (image("volumes", json!([{}])), "volumes[0]: "),
        (image("resourceLimits", json!({"cpu": "lots"})), "resourceLimits[\"cpu\"]: "),
        (image("resourceRequests", json!({"gpu": "0"})), "resourceRequests[\"gpu\"]: "),
        (image("snapshotId", json!("s")), "snapshotId: "),
    ];
    for (body, expected) in table {
        let error = run(body.clone()).expect_err(expected);
        assert!(error.message.starts_with(expected), "{body}: {}", error.message);
    }
}

#[test]
fn a_pool_name_that_is_none_is_not_found() {
    let error = run(json!({"extensions": {"poolRef": "../secrets"}})).unwrap_err();
    assert_eq!(error.code, ErrorCode::PoolNotFound);
}

#[test]
fn a_blank_pool_is_no_pool_and_empty_members_are_none() {
    let create = run(json!({
        "image": {"uri": "a"}, "entrypoint": ["x"], "extensions": {"poolRef": " "}, "volumes": [], "secureAccess": false,
        "credentialProxy": {"enabled": false}, "snapshotId": "", "timeout": null
    }))
    .unwrap();
    assert!(matches!(create.source, Source::Image(_)));
}

#[test]
fn quantities() {
    for good in ["1", "0.5", "500m", "2Gi", "1e3", "100M"] {
        assert!(is_quantity(good), "{good}");
    }
    for bad in ["", "m", "-1", "1GiB", "1 Gi", "1..5", "inf", "nan"] {
        assert!(!is_quantity(bad), "{bad}");
    }
}

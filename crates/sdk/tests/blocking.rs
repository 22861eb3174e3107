//! The blocking face: the same calls from a program without a runtime.

mod fake;

use fake::Fake;
use opensandbox::{Error, Event, Sandbox, blocking};

#[test]
fn a_program_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start());
    fake.script(|s| s.execd_in_create = true);
    let client = blocking::Client::new(fake.config()).unwrap();
    let sandbox = client.create(Sandbox::from_pool("agent-pool")).unwrap();
    fake.stream([fake::hello()]);
    assert_eq!(sandbox.commands().run("echo hello").unwrap().stdout_text(), "hello");
    fake.stream([fake::hello()]);
    let events: Result<Vec<Event>, Error> = sandbox.commands().stream("echo hello").unwrap().collect();
    assert!(events.unwrap().last().unwrap().is_terminal());
    fake.script(|s| s.files.insert("/a".to_owned(), "text".into()));
    assert_eq!(sandbox.files().read_text("/a").unwrap(), "text");
    assert_eq!(client.block_on(client.inner().pools().list()).unwrap().len(), 1);
    sandbox.kill().unwrap();
    assert!(fake.seen().contains(&"DELETE /v1/sandboxes/s1".to_owned()));
    // Where it would hold a runtime up, it is refused, and dropping it there does no harm.
    runtime.block_on(async move {
        let error = client.get("s1").unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        drop((client, sandbox));
    });
}

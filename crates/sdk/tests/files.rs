//! Files over the published wire.

mod fake;

use fake::Fake;
use futures::TryStreamExt;
use opensandbox::{ErrorCode, WriteFile};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn reading_whole_in_part_and_as_a_stream() {
    let fake = Fake::start().await;
    let files = fake.client().attach("s1").files();
    fake.script(|s| s.files.insert("/a b&c".to_owned(), "0123456789".into()));
    assert_eq!(files.read_text("/a b&c").await.unwrap(), "0123456789");
    assert_eq!(files.read_range("/a b&c", 2..5).await.unwrap(), "234");
    assert_eq!(files.read_range("/a b&c", 8..).await.unwrap(), "89");
    assert_eq!(files.read_range("/a b&c", 10..).await.unwrap(), "");
    let stream = files.stream("/a b&c").await.unwrap();
    assert_eq!(stream.size(), Some(10));
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"0123456789");
    let mut text = String::new();
    files.stream("/a b&c").await.unwrap().into_async_read().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "0123456789");
    assert_eq!(files.read("/none").await.unwrap_err().code(), Some(ErrorCode::FileNotFound));
    fake.script(|s| s.files.insert("/binary".to_owned(), vec![b'a', 0xff].into()));
    assert!(files.read_text("/binary").await.unwrap_err().to_string().contains("no UTF-8 text from byte 1"));
}

#[tokio::test]
async fn uploads_are_pairs_of_metadata_and_file() {
    let fake = Fake::start().await;
    let files = fake.client().attach("s1").files();
    files.write_many([WriteFile::new("/a", "one").mode(0o600), WriteFile::new("/b", vec![0xff])]).await.unwrap();
    let (headers, body) = fake.script(|s| s.uploads.remove(0));
    assert!(headers.contains_key("content-length"), "a body of known size is not sent in chunks");
    let text = String::from_utf8_lossy(&body);
    let parts: Vec<_> = text.split("\r\n").filter(|line| !line.starts_with("--") && !line.is_empty()).collect();
    assert_eq!(
        parts[..4],
        [
            r#"Content-Disposition: form-data; name="metadata"; filename="metadata""#,
            "content-type: application/json",
            r#"{"path":"/a","mode":600}"#,
            r#"Content-Disposition: form-data; name="file"; filename="file""#
        ]
    );
    assert_eq!(parts[4], "one");

    // A reader is sent once only; its size is not known.
    let source: &[u8] = b"from a reader";
    files.upload("/c", source, None).await.unwrap();
    let (headers, body) = fake.script(|s| s.uploads.remove(0));
    assert!(!headers.contains_key("content-length"));
    assert!(String::from_utf8_lossy(&body).contains("\r\n\r\nfrom a reader\r\n"));
    files.upload("/c", source, Some(13)).await.unwrap();
    assert!(fake.script(|s| s.uploads.remove(0)).0.contains_key("content-length"));
}

#[tokio::test]
async fn a_write_is_repeated_and_an_upload_is_not() {
    let fake = Fake::start().await;
    let files = fake.client().attach("s1").files();
    fake.fail("POST /execd/files/upload", 503, &[], "");
    files.write("/a", "x").await.unwrap();
    fake.fail("POST /execd/files/upload", 503, &[], "");
    assert_eq!(files.upload("/a", &b"x"[..], None).await.unwrap_err().status(), Some(503));
}

#[tokio::test]
async fn trees() {
    let fake = Fake::start().await;
    let files = fake.client().attach("s1").files();
    files.remove(["/a", "/b"]).await.unwrap();
    assert_eq!(files.replace("/a", "x", "y").await.unwrap(), 3);
    assert!(files.replace("/a", "", "y").await.is_err());
}

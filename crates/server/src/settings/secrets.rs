//! Files with secrets. What is in them never comes into a message.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Reads the platform's secret: 32 bytes as they are, or in base64.
pub fn token_secret(path: &Path) -> Result<[u8; 32], String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    if let Ok(secret) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(secret);
    }
    let decoded = STANDARD.decode(bytes.trim_ascii()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    decoded.ok_or_else(|| {
        format!("{} holds {} bytes; it holds 32 bytes, as they are or in base64", path.display(), bytes.len())
    })
}

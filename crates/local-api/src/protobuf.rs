//! Bodies in Kubernetes' protobuf form, for the few kinds that kubectl sends so (`kubectl create configmap`, ...).
//!
//! Answers are JSON all the same: clients read whatever the content type says.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, Result};

/// Every body begins so.
const MAGIC: &[u8; 4] = b"k8s\0";
const DEPTH: usize = 16;

/// What a field of a message holds.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Int,
    Bool,
    Texts,
    TextMap,
    BytesMap,
    One(&'static [Field]),
    Many(&'static [Field]),
    IntOrString,
}

/// Number, JSON name and type of a field.
type Field = (u64, &'static str, Type);

const OWNER: &[Field] = &[
    (1, "kind", Type::Text),
    (3, "name", Type::Text),
    (4, "uid", Type::Text),
    (5, "apiVersion", Type::Text),
    (6, "controller", Type::Bool),
    (7, "blockOwnerDeletion", Type::Bool),
];
const META: &[Field] = &[
    (1, "name", Type::Text),
    (2, "generateName", Type::Text),
    (3, "namespace", Type::Text),
    (5, "uid", Type::Text),
    (6, "resourceVersion", Type::Text),
    (11, "labels", Type::TextMap),
    (12, "annotations", Type::TextMap),
    (13, "ownerReferences", Type::Many(OWNER)),
    (14, "finalizers", Type::Texts),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Type::One(META)),
    (2, "data", Type::TextMap),
    (3, "binaryData", Type::BytesMap),
    (4, "immutable", Type::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", Type::One(META)),
    (2, "data", Type::BytesMap),
    (3, "type", Type::Text),
    (4, "stringData", Type::TextMap),
    (5, "immutable", Type::Bool),
];
const NAMESPACE: &[Field] = &[(1, "metadata", Type::One(META))];
const REFERENCE: &[Field] = &[(3, "name", Type::Text)];
const LOCAL_REFERENCE: &[Field] = &[(1, "name", Type::Text)];
const ACCOUNT: &[Field] = &[
    (1, "metadata", Type::One(META)),
    (2, "secrets", Type::Many(REFERENCE)),
    (3, "imagePullSecrets", Type::Many(LOCAL_REFERENCE)),
    (4, "automountServiceAccountToken", Type::Bool),
];
const PORT: &[Field] = &[
    (1, "name", Type::Text),
    (2, "protocol", Type::Text),
    (3, "port", Type::Int),
    (4, "targetPort", Type::IntOrString),
    (5, "nodePort", Type::Int),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Type::Many(PORT)),
    (2, "selector", Type::TextMap),
    (3, "clusterIP", Type::Text),
    (4, "type", Type::Text),
    (10, "externalName", Type::Text),
];
const SERVICE: &[Field] = &[(1, "metadata", Type::One(META)), (2, "spec", Type::One(SERVICE_SPEC))];
const PRECONDITIONS: &[Field] = &[(1, "uid", Type::Text), (2, "resourceVersion", Type::Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Type::Int),
    (2, "preconditions", Type::One(PRECONDITIONS)),
    (3, "orphanDependents", Type::Bool),
    (4, "propagationPolicy", Type::Text),
    (5, "dryRun", Type::Texts),
];
const EVICTION: &[Field] = &[(1, "metadata", Type::One(META)), (2, "deleteOptions", Type::One(DELETE_OPTIONS))];

fn fields_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => ACCOUNT,
        "Service" => SERVICE,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        _ => return None,
    })
}

/// Reads a body.
pub(crate) fn parse(body: &[u8]) -> Result<Value> {
    let malformed = || ApiError::bad_request("the body of the request is not Kubernetes protobuf");
    // The envelope: type (1) with apiVersion (1) and kind (2), and the object (2).
    let envelope = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, value) in wire(envelope).ok_or_else(malformed)? {
        match (number, value) {
            (1, Wire::Bytes(inner)) => {
                for (number, value) in wire(inner).ok_or_else(malformed)? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(inner)) => raw = inner,
            _ => {}
        }
    }
    let Some(fields) = fields_of(&kind) else {
        return Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml (protobuf is not read for {kind})"
        )));
    };
    let mut object = message(raw, fields, 0).ok_or_else(malformed)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn wire(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..)?;
                Wire::Other
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            5 => {
                bytes = bytes.get(4..)?;
                Wire::Other
            }
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn message(bytes: &[u8], fields: &'static [Field], depth: usize) -> Option<Map<String, Value>> {
    if depth > DEPTH {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let mut object = Map::new();
    for (number, value) in wire(bytes)? {
        let Some((_, name, kind)) = fields.iter().find(|(n, ..)| *n == number) else { continue };
        let slot = |object: &mut Map<String, Value>, empty: Value| object.entry(*name).or_insert(empty).take();
        let value = match (kind, value) {
            // Kubernetes writes every plain field, also those that are not set.
            (Type::Text, Wire::Bytes([])) => continue,
            (Type::Text, Wire::Bytes(b)) => text(b)?.into(),
            (Type::Int, Wire::Varint(0)) if *name == "nodePort" => continue,
            (Type::Int, Wire::Varint(n)) => n.cast_signed().into(),
            (Type::Bool, Wire::Varint(n)) => (n != 0).into(),
            (Type::Texts, Wire::Bytes(b)) => {
                let mut list = slot(&mut object, json!([]));
                list.as_array_mut()?.push(text(b)?.into());
                list
            }
            (Type::TextMap | Type::BytesMap, Wire::Bytes(b)) => {
                let mut map = slot(&mut object, json!({}));
                let (mut key, mut entry) = (String::new(), &[][..]);
                for (number, value) in wire(b)? {
                    match (number, value) {
                        (1, Wire::Bytes(b)) => key = text(b)?,
                        (2, Wire::Bytes(b)) => entry = b,
                        _ => {}
                    }
                }
                let entry = match kind {
                    Type::BytesMap => base64::engine::general_purpose::STANDARD.encode(entry),
                    _ => text(entry)?,
                };
                map.as_object_mut()?.insert(key, entry.into());
                map
            }
            (Type::One(fields), Wire::Bytes(b)) => Value::Object(message(b, fields, depth + 1)?),
            (Type::Many(fields), Wire::Bytes(b)) => {
                let mut list = slot(&mut object, json!([]));
                list.as_array_mut()?.push(Value::Object(message(b, fields, depth + 1)?));
                list
            }
            (Type::IntOrString, Wire::Bytes(b)) => {
                let (mut is_text, mut number, mut word) = (false, 0, String::new());
                for (field, value) in wire(b)? {
                    match (field, value) {
                        (1, Wire::Varint(n)) => is_text = n == 1,
                        (2, Wire::Varint(n)) => number = n.cast_signed(),
                        (3, Wire::Bytes(b)) => word = text(b)?,
                        _ => {}
                    }
                }
                if is_text { word.into() } else { number.into() }
            }
            _ => continue,
        };
        object.insert((*name).into(), value);
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(payload.len()).expect("short")];
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_config_map() {
        let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let object = [field(1, &field(1, b"name")), field(2, &entry)].concat();
        let body = [MAGIC.to_vec(), field(1, &kind), field(2, &object)].concat();
        let value = parse(&body).expect("well formed");
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"}, "data": {"k": "v"}})
        );
        for cut in 4..body.len() {
            // Whatever is cut off, there is an answer.
            let _ = parse(&body[..cut]);
        }
        assert_eq!(parse(b"k8s\0").expect_err("no kind").code, 415);
        assert_eq!(parse(b"{}").expect_err("no protobuf").code, 400);
    }
}

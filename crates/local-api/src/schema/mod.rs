//! Structural schemas: one form for the schemas of CRDs and for those of the built-in kinds.

mod check;
mod compile;
mod default;
mod expressions;
mod formats;
mod prune;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use check::first_type_fault;
pub use compile::compile;
pub use default::fill;
pub use expressions::{check as check_rules, has_rules};
pub use prune::{prune, unknown_fields};
pub use validate::validate;

/// JSON type a node demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Anything.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Kind {
    /// The word of OpenAPI.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list is merged and who owns its items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// Owned and replaced as one.
    #[default]
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects told apart by these keys.
    Map(Vec<String>),
}

/// Rules on a value besides its type.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub allowed: Vec<Value>,
    /// `minimum`, and whether it is exclusive
    pub minimum: Option<(f64, bool)>,
    /// `maximum`, and whether it is exclusive
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minLength`
    pub min_length: Option<u64>,
    /// `maxLength`
    pub max_length: Option<u64>,
    /// `pattern`
    pub pattern: Option<regex::Regex>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `uniqueItems`
    pub unique: bool,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `allOf`
    pub all_of: Vec<Node>,
    /// `anyOf`
    pub any_of: Vec<Node>,
    /// `oneOf`
    pub one_of: Vec<Node>,
    /// `not`
    pub not: Option<Box<Node>>,
    /// `x-kubernetes-validations`
    pub cel: Vec<expressions::Rule>,
}

/// One node of a schema.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Name of a shared definition that stands for this node.
    pub reference: Option<String>,
    /// JSON type.
    pub kind: Kind,
    /// `format`
    pub format: Option<String>,
    /// `properties`
    pub properties: BTreeMap<String, Node>,
    /// `items`
    pub items: Option<Box<Node>>,
    /// `additionalProperties` as a schema
    pub additional: Option<Box<Node>>,
    /// Fields nobody declared stay.
    pub preserve: bool,
    /// The node is a whole Kubernetes object.
    pub embedded: bool,
    /// An integer or a string.
    pub int_or_string: bool,
    /// `null` is a value here.
    pub nullable: bool,
    /// `default`
    pub default: Option<Value>,
    /// How a list is merged.
    pub list: ListKind,
    /// The object is owned and replaced as one.
    pub atomic: bool,
    /// Key by which a strategic merge tells items apart; empty for a list of scalars that is merged.
    pub merge_key: Option<String>,
    /// A strategic merge keeps only the keys it names (`retainKeys`).
    pub retain_keys: bool,
    /// Rules, where there are any.
    pub rules: Option<Box<Rules>>,
}

impl Node {
    /// The node of a field, when the schema knows the field.
    pub fn field<'a>(&'a self, defs: &'a Defs, name: &str) -> Option<&'a Node> {
        let node = self.resolve(defs);
        node.properties.get(name).or(node.additional.as_deref())
    }

    /// The node of a list's items.
    pub fn item<'a>(&'a self, defs: &'a Defs) -> Option<&'a Node> {
        self.resolve(defs).items.as_deref()
    }

    /// Whether a value is of the node's JSON type; `integer` tells what counts as a whole number.
    fn takes(&self, value: &Value, integer: impl Fn(&Value) -> bool) -> bool {
        if self.int_or_string {
            return value.is_string() || integer(value);
        }
        match self.kind {
            Kind::Any => true,
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Boolean => value.is_boolean(),
            Kind::Number => value.is_number(),
            Kind::Integer => integer(value),
        }
    }

    /// The node that a reference stands for.
    pub fn resolve<'a>(&'a self, defs: &'a Defs) -> &'a Node {
        match &self.reference {
            Some(name) => defs.0.get(name).unwrap_or(self),
            None => self,
        }
    }
}

/// Shared definitions, by name.
#[derive(Debug, Default)]
pub struct Defs(pub BTreeMap<String, Node>);

/// A schema: its root and the definitions it refers to.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Root.
    pub root: Node,
    /// Definitions.
    pub defs: Arc<Defs>,
}

/// A field's path, as causes and warnings name it.
pub fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else if field.contains('.') {
        format!("{path}[{field}]")
    } else {
        format!("{path}.{field}")
    }
}

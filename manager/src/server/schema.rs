//! What the contract says of texts and maps that are not just any: what keeps to it is taken.

use peer_table::peers::{
    LABEL_KEY_CHARS_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, PORTS_MAX,
    PURPOSE_CHARS_MAX,
};
use utoipa::openapi::schema::{AnyOfBuilder, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                Schema::from($schema).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

schemas! {
    /// A peer's id. Of dots alone there are three or more, as `.` and `..` mean something in a path.
    Id = pattern(r"^([A-Za-z0-9._:-]*[A-Za-z0-9_:-][A-Za-z0-9._:-]*|\.{3,128})$")
        .min_length(Some(1))
        .max_length(Some(128));
    /// A name for people.
    Name = words("", NAME_BYTES_MAX).examples(["files-0"]);
    /// An IPv4 or IPv6 address.
    Address = any_of([KnownFormat::Ipv4, KnownFormat::Ipv6].map(|format| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(format)))
    }));
    /// The port of each purpose.
    Ports = ports(Type::Integer.into());
    /// Ports to set, or to remove with null.
    PortsPatch = ports(SchemaType::from_iter([Type::Integer, Type::Null]));
    /// Free text by key.
    Labels = labels(Type::String.into());
    /// Labels to set, or to remove with null.
    LabelsPatch = labels(SchemaType::from_iter([Type::String, Type::Null]));
    /// Labels to filter by, each as `key=value` or as `key`.
    LabelFilters = ArrayBuilder::new().items(pattern("^[^=]+(=|$)").build());
    /// Entity tags, or `*` for any.
    EntityTags = any_of([
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["*"])),
        pattern(r#"^(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*$"#),
    ]);
}

fn pattern(pattern: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.pattern(Some(pattern))
}

/// A text without control characters and without what is `banned`.
fn words(banned: &str, length_max: usize) -> ObjectBuilder {
    pattern(&format!(r"^[^{banned}\x00-\x1f\x7f-\x9f]+$"))
        .min_length(Some(1))
        .max_length(Some(length_max))
}

fn any_of<const N: usize>(schemas: [ObjectBuilder; N]) -> AnyOfBuilder {
    let any_of = schemas.into_iter();
    any_of.fold(AnyOfBuilder::new(), AnyOfBuilder::item)
}

fn ports(port: SchemaType) -> ObjectBuilder {
    let port = ObjectBuilder::new().schema_type(port);
    let port = port.minimum(Some(1)).maximum(Some(65_535));
    ObjectBuilder::new()
        .property_names(Some(words("", PURPOSE_CHARS_MAX).build()))
        .additional_properties(Some(Schema::from(port)))
        .max_properties(Some(PORTS_MAX))
}

fn labels(label: SchemaType) -> ObjectBuilder {
    let label = ObjectBuilder::new().schema_type(label);
    let label = label.max_length(Some(LABEL_VALUE_BYTES_MAX));
    ObjectBuilder::new()
        .property_names(Some(words("=", LABEL_KEY_CHARS_MAX).build()))
        .additional_properties(Some(Schema::from(label)))
        .max_properties(Some(LABELS_MAX))
}

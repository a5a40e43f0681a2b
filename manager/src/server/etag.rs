//! The version of a record as an entity tag, and the conditions that a request puts on it.

use axum::extract::FromRequestParts;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use peer_table::Version;
use peer_table::table::{Match, Precondition};
use utoipa::IntoParams;

use super::problem::{Kind, Problem};
use super::schema::EntityTags;

/// The strong tag of a version.
pub(super) fn of(version: Version) -> HeaderValue {
    let tag = ["\"", version.text().as_str(), "\""].concat();
    HeaderValue::try_from(tag).expect("hexadecimal digits and a dash")
}

/// `If-Match` and `If-None-Match` of a request (RFC 9110, section 13.1).
#[derive(Clone, Debug)]
pub(super) struct Conditions(pub(super) Precondition);

/// The same, as the contract says it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "Conditions are read instead")]
pub(super) struct ConditionParams {
    /// Only if the peer is at one of these versions; `*` is any.
    #[param(rename = "If-Match", value_type = EntityTags, required = false, inline)]
    if_match: Option<String>,
    /// Only if it is at none of these versions; `*` is any.
    #[param(
        rename = "If-None-Match",
        value_type = EntityTags,
        required = false,
        inline
    )]
    if_none_match: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        conditions(&parts.headers).map(Self)
    }
}

fn conditions(headers: &HeaderMap) -> Result<Precondition, Problem> {
    Ok(Precondition {
        // A weak tag never matches strongly.
        if_match: matching(headers, &IF_MATCH, |tag| !tag.weak)?,
        if_none_match: matching(headers, &IF_NONE_MATCH, |_| true)?,
    })
}

fn matching(
    headers: &HeaderMap,
    name: &HeaderName,
    counts: impl Fn(&Tag<'_>) -> bool,
) -> Result<Option<Match>, Problem> {
    let malformed = || {
        let detail = format!("{name} must be * or a list of entity tags such as \"abc\"");
        Problem::new(Kind::BAD_HEADER, detail).about(name.as_str())
    };
    let mut given = headers.get_all(name).iter().peekable();
    if given.peek().is_none() {
        return Ok(None);
    }
    let mut versions = Vec::new();
    let mut any = false;
    for line in given {
        let line = line.to_str().map_err(|_| malformed())?.trim();
        if line == "*" {
            any = true;
            continue;
        }
        let tags = tags(line).ok_or_else(malformed)?;
        // A tag that is not of our making is well-formed and matches nothing.
        let ours = tags
            .iter()
            .filter(|tag| counts(tag))
            .filter_map(|tag| tag.opaque.parse::<Version>().ok());
        versions.extend(ours);
    }
    Ok(Some(if any {
        Match::Any
    } else {
        Match::Versions(versions)
    }))
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

/// A list of entity tags; `None` if it is malformed.
fn tags(mut list: &str) -> Option<Vec<Tag<'_>>> {
    let mut tags = Vec::new();
    loop {
        list = list.trim_start();
        let weak = list.starts_with("W/");
        let rest = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?;
        let (opaque, rest) = rest.split_once('"')?;
        if opaque.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return None;
        }
        tags.push(Tag { weak, opaque });
        list = rest.trim_start();
        if list.is_empty() {
            return Some(tags);
        }
        list = list.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: &str = "0000000000001234-01010101010101010101010101010101";

    fn read(name: &HeaderName, lines: &[&str]) -> Result<Precondition, Kind> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_str(line).unwrap());
        }
        conditions(&headers).map_err(|problem| problem.kind())
    }

    fn versions(texts: &[&str]) -> Match {
        let versions = texts.iter().map(|text| text.parse().unwrap());
        Match::Versions(versions.collect())
    }

    #[test]
    fn tags_are_read_from_lists_and_from_several_lines() {
        let tag = format!("\"{V}\"");
        let list = format!("\"other\" , {tag},\"a,b\"");
        for lines in [&[tag.as_str()][..], &[&list], &["\"x\"", &tag]] {
            assert_eq!(
                read(&IF_MATCH, lines).unwrap().if_match,
                Some(versions(&[V]))
            );
        }
        assert_eq!(read(&IF_MATCH, &["*"]).unwrap().if_match, Some(Match::Any));
        assert_eq!(read(&IF_MATCH, &[]), Ok(Precondition::default()));
        let read_back = of(V.parse().unwrap());
        assert_eq!(read_back, tag);
    }

    #[test]
    fn a_weak_tag_matches_weakly_only() {
        let weak = format!("W/\"{V}\"");
        let strong = read(&IF_MATCH, &[&weak]).unwrap();
        assert_eq!(strong.if_match, Some(versions(&[])));
        let none = read(&IF_NONE_MATCH, &[&weak]).unwrap();
        assert_eq!(none.if_none_match, Some(versions(&[V])));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for bad in [
            V,
            "",
            "\"a",
            "\"a\" \"b\"",
            "\"a\",",
            "\"a b\"",
            "w/\"a\"",
            "*, \"a\"",
        ] {
            assert_eq!(read(&IF_MATCH, &[bad]), Err(Kind::BAD_HEADER), "{bad}");
        }
    }
}

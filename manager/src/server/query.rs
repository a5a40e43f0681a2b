//! The query of a request, read strictly: what is unknown, given twice or not understood is
//! refused, so that a misspelt filter is not a list of everything.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use peer_table::peers::{Filter, LABELS_MAX};
use percent_encoding::percent_decode;
use utoipa::IntoParams;

use super::problem::{Kind, Problem};
use super::schema;

/// The parameters of a query that nobody has asked for yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Params(Vec<(String, String)>);

/// What a call takes in its query.
pub(super) trait FromQuery: Sized {
    /// Takes its parameters out of `params`; whatever stays behind is refused.
    fn take(params: &mut Params) -> Result<Self, Problem>;
}

/// A call that takes no query.
impl FromQuery for () {
    fn take(_: &mut Params) -> Result<Self, Problem> {
        Ok(())
    }
}

/// A call that takes two groups of parameters.
impl<A: FromQuery, B: FromQuery> FromQuery for (A, B) {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        Ok((A::take(params)?, B::take(params)?))
    }
}

/// The query of a request.
#[derive(Clone, Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: FromQuery, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query.
pub(super) fn parse<T: FromQuery>(query: &str) -> Result<T, Problem> {
    let mut params = Params::parse(query)?;
    let taken = T::take(&mut params)?;
    params.refuse_rest()?;
    Ok(taken)
}

impl Params {
    fn parse(query: &str) -> Result<Self, Problem> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, Problem>>().map(Self)
    }

    /// All values of `name`.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let of_name = self.0.extract_if(.., |(given, _)| given == name);
        of_name.map(|(_, value)| value).collect()
    }

    /// The value of `name`, which is given once at the most.
    pub(super) fn one<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(refused(name, "is given more than once"));
        }
        let value = values.pop().map(|value| value.parse());
        value
            .transpose()
            .map_err(|error: T::Err| refused(name, error))
    }

    /// The value of `name`, which must be there.
    pub(super) fn needed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T, Problem> {
        self.one(name)?
            .ok_or_else(|| refused(name, "is missing from the query"))
    }

    fn refuse_rest(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                Err(refused(&shown, "is no parameter of this call"))
            }
        }
    }
}

/// A parameter that cannot be taken.
pub(super) fn refused(name: &str, why: impl Display) -> Problem {
    Problem::new(Kind::BAD_QUERY, format!("{name}: {why}")).about(name)
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded.map(Into::into).map_err(|_| {
        let detail = "the query is not UTF-8; encode each byte of it as %XX";
        Problem::new(Kind::BAD_QUERY, detail)
    })
}

/// Which peers a call is about: those that match all that is given.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterQuery {
    /// Exactly this name.
    name: Option<String>,
    /// This address, however it is spelled.
    #[param(value_type = Option<schema::Address>, inline, example = "10.0.0.7")]
    ip: Option<Address>,
    /// A label as `key=value`, or as `key` whatever its value; given several times, all of them must
    /// match.
    #[param(value_type = Option<schema::LabelFilters>, inline, example = json!(["zone=a"]))]
    label: Vec<Label>,
}

impl FromQuery for FilterQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        let labels = params.all("label");
        if labels.len() > LABELS_MAX {
            let why = format!(
                "was given {} times, and no record has more than {LABELS_MAX} labels",
                labels.len()
            );
            return Err(refused("label", why).limit(LABELS_MAX));
        }
        let labels = labels.into_iter();
        let labels = labels.map(|label| label.parse().map_err(|error| refused("label", error)));
        Ok(Self {
            name: params.one("name")?,
            ip: params.one("ip")?,
            label: labels.collect::<Result<_, _>>()?,
        })
    }
}

impl From<FilterQuery> for Filter {
    fn from(query: FilterQuery) -> Self {
        let FilterQuery { name, ip, label } = query;
        Self {
            name,
            ip: ip.map(|Address(ip)| ip),
            labels: label
                .into_iter()
                .map(|Label(key, value)| (key, value))
                .collect(),
        }
    }
}

#[derive(Clone, Debug)]
struct Address(IpAddr);

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| "must be an IPv4 or IPv6 address")
    }
}

#[derive(Clone, Debug)]
struct Label(String, Option<String>);

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        if key.is_empty() {
            return Err("must be key=value, or key");
        }
        Ok(Self(key.to_owned(), value.map(str::to_owned)))
    }
}

/// A yes or no.
#[derive(Copy, Clone, Debug)]
pub(super) struct Flag(pub(super) bool);

impl FromStr for Flag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err("must be true or false"),
        }
    }
}

/// A whole number from 1 to `MAX`.
#[derive(Copy, Clone, Debug)]
pub(super) struct Count<const MAX: usize>(pub(super) usize);

impl<const MAX: usize> FromStr for Count<MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .filter(|count| (1..=MAX).contains(count))
            .map(Self)
            .ok_or_else(|| format!("must be a whole number from 1 to {MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Filter, String> {
        parse::<FilterQuery>(query)
            .map(Filter::from)
            .map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn a_filter_is_read_with_its_escapes() {
        let read = filter("label=a=b=c&label=d=&label=e%2Ff&name=a%20b+c&ip=%3A%3A1&").unwrap();
        assert_eq!(read.name.as_deref(), Some("a b c"));
        assert_eq!(read.ip, Some("::1".parse().unwrap()));
        let labels = [("a", Some("b=c")), ("d", Some("")), ("e/f", None)]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(read.labels, labels);
        assert_eq!(filter(""), Ok(Filter::default()));
    }

    #[test]
    fn what_is_unknown_or_given_twice_or_malformed_is_refused_by_name() {
        for (query, part) in [
            ("colour=x", "colour: is no parameter"),
            ("name=a&name=a", "name: is given more than once"),
            ("label=", "label: must be key=value"),
            ("label==a", "label: must be key=value"),
            ("ip=10.0.0", "ip: must be an IPv4"),
            ("name=%FF", "is not UTF-8"),
        ] {
            let refused = filter(query).unwrap_err();
            assert!(refused.contains(part), "{query}: {refused}");
        }
        let labels = |count| vec!["label=a"; count].join("&");
        assert!(filter(&labels(LABELS_MAX)).is_ok());
        assert!(
            filter(&labels(LABELS_MAX + 1))
                .unwrap_err()
                .contains("more than 64")
        );
    }

    #[test]
    fn a_count_keeps_its_bounds() {
        for good in ["1", "10"] {
            assert!(good.parse::<Count<10>>().is_ok(), "{good}");
        }
        for bad in ["", "0", "11", "-1", "+ 1", "1.0", "99999999999999999999999"] {
            assert!(bad.parse::<Count<10>>().is_err(), "{bad}");
        }
    }
}

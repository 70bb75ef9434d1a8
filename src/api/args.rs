//! Reads the arguments of a call into a struct, by field name, ignoring case. An empty argument counts as missing.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::value::{Error as Unfit, MapDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{MOST_ITEMS, Request};
use crate::error::{Error, Result};

impl<'a> Request<'a> {
    /// Fails with a message for the client at the first argument with an invalid value.
    pub fn args<T: Deserialize<'a>>(&self) -> Result<T> {
        let mut first: BTreeMap<String, &'a str> = BTreeMap::new();
        for (name, value) in self.args {
            first.entry(name.to_ascii_lowercase()).or_insert(value);
        }
        let given = first.into_iter().filter(|(_, value)| !value.is_empty());
        let fields = given.map(|(name, value)| (name.clone(), Argument { name, value }));
        T::deserialize(MapDeserializer::new(fields)).map_err(|unfit: Unfit| Error::invalid(unfit.to_string()))
    }
}

/// The maximum number of items on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub usize);

impl Default for Limit {
    fn default() -> Self {
        Limit(100)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let limit = u64::deserialize(deserializer)?;
        let fits = usize::try_from(limit).ok().filter(|limit| (1..=MOST_ITEMS).contains(limit));
        fits.map(Limit)
            .ok_or_else(|| D::Error::custom(format!("limit={limit} must be between 1 and {MOST_ITEMS}")))
    }
}

struct Argument<'a> {
    name: String,
    value: &'a str,
}

impl Argument<'_> {
    fn unfit(&self, why: impl Display) -> Unfit {
        Unfit::custom(format!("{}={:?} {why}", self.name, self.value))
    }
}

impl<'de> IntoDeserializer<'de> for Argument<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Argument<'de> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Unfit> {
        visitor.visit_borrowed_str(self.value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Unfit> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Unfit> {
        match self.value {
            "1" | "true" => visitor.visit_bool(true),
            "0" | "false" => visitor.visit_bool(false),
            _ => Err(self.unfit("must be 0 or 1")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Unfit> {
        let number = self.value.parse().map_err(|_| self.unfit("is not a non-negative integer"))?;
        visitor.visit_u64(number)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Unfit> {
        let number: u64 = self.value.parse().map_err(|_| self.unfit("is not a non-negative integer"))?;
        let time = i64::try_from(number).map_err(|_| self.unfit("is not a time in milliseconds"))?;
        visitor.visit_i64(time)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Unfit> {
        if !variants.contains(&self.value) {
            return Err(match variants {
                [one, other] => self.unfit(format_args!("must be {one} or {other}")),
                _ => self.unfit(format_args!("must be one of {}", variants.join(", "))),
            });
        }
        visitor.visit_enum(self.value.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 u8 u16 u32 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, State};

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)] // shown as they are
    struct All<'a> {
        #[serde(default)]
        dry_run: bool,
        key: Option<&'a str>,
        kind: Option<Kind>,
        state: Option<State>,
        before: Option<u64>,
        since: Option<i64>,
        #[serde(default)]
        limit: Limit,
    }

    fn read(pairs: &[(&str, &str)]) -> std::result::Result<String, String> {
        let args: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request { args: &args, body: b"", caller: "" };
        request.args::<All<'_>>().map(|all| format!("{all:?}")).map_err(|error| error.message)
    }

    #[test]
    fn arguments_are_read_by_name_and_type() {
        let none = read(&[("secret", "s"), ("kind", ""), ("limit", "")]).unwrap();
        assert!(
            none.contains("dry_run: false, key: None, kind: None") && none.contains("limit: Limit(100)"),
            "{none}"
        );
        let all = read(&[
            ("Dry_Run", "true"),
            ("key", "摄像头"),
            ("KEY", "the second"),
            ("kind", "ffmpeg"),
            ("state", "dormant"),
            ("before", "18446744073709551615"),
            ("since", "9223372036854775807"),
            ("limit", "10000"),
        ]);
        let all = all.unwrap();
        for part in ["dry_run: true", "key: Some(\"摄像头\")", "Some(Ffmpeg)", "Some(Dormant)", "Limit(10000)"]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
        for (name, value, why) in [
            ("dry_run", "yes", "dry_run=\"yes\" must be 0 or 1"),
            ("kind", "pulls", "kind=\"pulls\" must be one of pull, push, ffmpeg"),
            ("state", "on", "state=\"on\" must be one of enabled, disabled, dormant, quarantined"),
            ("before", "-1", "before=\"-1\" is not a non-negative integer"),
            ("since", "9223372036854775808", "since=\"9223372036854775808\" is not a time in milliseconds"),
            ("since", "-0", "since=\"-0\" is not a non-negative integer"),
            ("limit", "0", "limit=0 must be between 1 and 10000"),
            ("limit", "10001", "limit=10001 must be between 1 and 10000"),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err(), why);
        }
    }
}

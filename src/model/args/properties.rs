//! Arguments of any names and any bytes: what goes in comes out, and only what is said to leave is left out.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::model::LABEL;
use crate::model::redact_value;
use crate::testing;

type Pairs = Vec<(String, Vec<u8>)>;

/// Few, so that one is often given twice or in another case, and any others.
fn name() -> impl Strategy<Value = String> {
    let usual = ["url", "URL", "force", "Force", "secret", "Secret", LABEL, "Journal_Label", "app", ""];
    prop_oneof![3 => prop::sample::select(usual.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// Texts, bytes that are none, and what looks as arguments do in the file.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let odd =
        [r#"{"hex":"ff"}"#, r#"{"sealed":{"xchacha20poly1305":"00"}}"#, "\u{7f}\u{0}\"\\\n", "rtsp://u:p@h/1"];
    prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..12),
        prop::sample::select(odd.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((name(), value()), 0..8)
}

/// Of each name one, whatever its case.
fn distinct() -> impl Strategy<Value = Pairs> {
    btree_map("[a-z_]{1,6}", value(), 0..8).prop_map(|pairs| pairs.into_iter().collect())
}

fn args(pairs: &[(String, Vec<u8>)]) -> Args {
    Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()))).unwrap()
}

/// What counts of a call: of each name the last, and no secret.
fn counting(pairs: &[(String, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("secret")).cloned().collect()
}

/// A body as MediaServer reads it: JSON, the strings of which may have any bytes.
fn sent(body: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let as_signs: String = body.iter().map(|byte| char::from(*byte)).collect();
    let object: BTreeMap<String, String> = serde_json::from_str(&as_signs).unwrap();
    let bytes = |text: &str| -> Vec<u8> { text.chars().map(|sign| u8::try_from(sign).unwrap()).collect() };
    object.iter().map(|(name, value)| (String::from_utf8(bytes(name)).unwrap(), bytes(value))).collect()
}

/// The same once more with its names in other cases.
fn in_capitals(pairs: &[(String, Vec<u8>)]) -> Pairs {
    pairs.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect()
}

/// Whether both make the same call to MediaServer.
fn the_same(one: &Args, other: &Args) -> bool {
    one.read().differences(&other.read()).next().is_none()
}

proptest! {
    #![proptest_config(testing::config(512))]

    #[test]
    fn what_is_given_is_replayed_whatever_way_it_was_kept(pairs in pairs(), force in value()) {
        let given = args(&pairs);
        let stored = Args::from_stored(given.as_str()).unwrap();
        prop_assert_eq!(&stored, &given);
        // As exportJournal and importJournal take it.
        let object: Map<String, Value> = serde_json::from_str(given.as_str()).unwrap();
        prop_assert_eq!(&Args::from_object(&object).unwrap(), &given);

        let counting = counting(&pairs);
        prop_assert_eq!(&sent(&body_of(&stored.replayed(&[]).unwrap())), &counting);

        let mut replayed = counting;
        replayed.retain(|name, _| !name.eq_ignore_ascii_case("force"));
        let force = String::from_utf8_lossy(&force).into_owned();
        replayed.insert("force".to_owned(), force.clone().into_bytes());
        prop_assert_eq!(sent(&body_of(&stored.replayed(&[("force", &force)]).unwrap())), replayed);
    }

    #[test]
    fn encrypted_arguments_are_hidden_until_they_are_decrypted(pairs in pairs(), ciphertext in vec(any::<u8>(), 0..40)) {
        let plain = args(&pairs);
        let encrypted = plain.clone().encrypted_as(&ciphertext);
        prop_assert_eq!((&encrypted, encrypted.ciphertext()), (&plain, Some(ciphertext.clone())));
        let read = Args::from_stored(encrypted.stored()).unwrap();
        prop_assert_eq!((read.is_encrypted(), read.as_str(), read.ciphertext()), (true, "", Some(ciphertext)));
        let opened = read.decrypted(plain.as_str()).unwrap();
        prop_assert_eq!((&opened, opened.stored()), (&plain, encrypted.stored()));
    }

    #[test]
    fn they_are_the_same_in_any_order_and_with_any_label(
        (pairs, shuffled) in distinct().prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
        label in value(),
        other in value(),
        which: prop::sample::Index,
    ) {
        let given = args(&pairs);
        prop_assert_eq!(&args(&shuffled), &given);
        for name in [LABEL, "Journal_LABEL"] {
            let marked = args(&[shuffled.clone(), vec![(name.to_owned(), label.clone())]].concat());
            prop_assert!(marked != given && the_same(&marked, &given) && the_same(&given, &marked));
        }
        // One value differs, or one is missing.
        if !pairs.is_empty() {
            let which = which.index(pairs.len());
            let mut changed = shuffled.clone();
            changed[which].1.clone_from(&other);
            let is_the_same = other == shuffled[which].1;
            prop_assert_eq!(the_same(&args(&changed), &given), is_the_same);
            prop_assert_eq!(args(&changed) == given, is_the_same);
            changed.remove(which);
            prop_assert!(!the_same(&args(&changed), &given) && !the_same(&given, &args(&changed)));
        }
    }

    #[test]
    fn each_is_found_by_its_name_in_any_case(pairs in distinct()) {
        for args in [args(&pairs), args(&in_capitals(&pairs))] {
            let read = args.read();
            for (name, value) in &pairs {
                let text = std::str::from_utf8(value).ok();
                for name in [name.clone(), name.to_uppercase()] {
                    let is_secret = name.eq_ignore_ascii_case("secret");
                    prop_assert_eq!(read.get(&name), text.filter(|_| !is_secret));
                    prop_assert!(is_secret || args.may_have(&name));
                }
            }
        }
    }

    /// Of a URL, its credentials; of anything else nothing.
    #[test]
    fn credentials_are_hidden_and_nothing_else(
        text in "[^:]*",
        user in "[a-z]{1,8}",
        password in "[a-zA-Z/@:?# '\"密]{0,12}",
        address in r"(10\.0\.0\.[1-9]|nvr\.local)(:[1-9][0-9]{1,3})?",
        path in "(/[a-z0-9]{1,6}){0,3}(\\?channel=[0-9])?",
    ) {
        prop_assert_eq!(redact_value(&text), text);
        let open = format!("rtsp://{address}{path}");
        prop_assert_eq!(redact_value(&open), open);
        let shown = redact_value(&format!("rtsp://{user}:{password}@{address}{path}"));
        prop_assert_eq!(shown, format!("rtsp://***@{address}{path}"));
    }
}

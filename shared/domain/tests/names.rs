//! Which names are valid, and that every key can be parsed.

use domain::config::Label;
use domain::ids::{Epoch, InstanceId, JobId, Owner, PoolName, Repository, Scope, SlotId, StackName};
use domain::state::{FunctionName, Key};

#[test]
fn each_name_has_its_rule() {
    let longest = |length: usize| "a".repeat(length);
    for good in ["a", "0", "linux-x64", "-", &longest(16)] {
        assert_eq!(good.parse::<PoolName>().expect(good).as_str(), good);
    }
    for bad in ["", "Linux", "a_b", "a b", "a#b", "ü", &longest(17)] {
        let error = bad.parse::<PoolName>().expect_err(bad).to_string();
        assert!(error.contains("1 to 16 characters of a-z, 0-9 and -"), "{error}");
    }
    assert!(longest(12).parse::<StackName>().is_ok() && longest(13).parse::<StackName>().is_err());
    assert!(
        longest(8).parse::<Epoch>().is_ok() && longest(9).parse::<Epoch>().is_err() && "a-b".parse::<Epoch>().is_err()
    );
    for good in ["octo-org", "A", "a.b_c", &longest(100)] {
        assert_eq!(good.parse::<Owner>().expect(good).as_str(), good);
    }
    for bad in ["", ".", "..", "a/b", "a b", "ü", &longest(101)] {
        assert!(bad.parse::<Owner>().is_err(), "{bad:?} is accepted");
    }
    for good in ["drover", "x64", "self-hosted", "with space"] {
        assert_eq!(good.parse::<Label>().expect(good).as_str(), good);
    }
    assert!("".parse::<Label>().is_err());
}

#[test]
fn accounts_repositories_and_scopes_are_compared_without_case() {
    let owner = |text: &str| text.parse::<Owner>().expect(text);
    assert_eq!(owner("Octo-Org"), owner("octo-org"));
    assert_ne!(owner("octo-org"), owner("octo-orb"));
    assert!(owner("A") < owner("b") && owner("a") < owner("B"));
    let repository = |text: &str| text.parse::<Repository>().expect(text);
    assert_eq!(repository("Octo/Widgets"), repository("octo/widgets"));
    assert_ne!(repository("octo/widgets"), repository("octo/gadgets"));
    assert_eq!(repository("octo/Widgets").to_string(), "octo/Widgets", "the case is kept");
    let scope = |text: &str| text.parse::<Scope>().expect(text);
    assert!(scope("octo").covers(&repository("Octo/widgets")) && !scope("octo").covers(&repository("mona/widgets")));
    assert!(scope("octo/widgets").covers(&repository("octo/WIDGETS")));
    assert!(!scope("octo/widgets").covers(&repository("octo/gadgets")));
    assert_eq!((scope("octo").to_string(), scope("octo/widgets").to_string()), ("octo".into(), "octo/widgets".into()));
    assert_eq!(scope("octo/widgets").owner(), &owner("octo"));
}

#[test]
fn every_key_is_parsed_and_no_other_spelling_is() {
    let pool: PoolName = "linux".parse().expect("a pool");
    let slot = SlotId { version: 41, index: 7 };
    let of_pool = [
        (Key::Meta(pool.clone()), "META"),
        (Key::Waiting(pool.clone(), JobId(5)), "JOB#5"),
        (Key::Batch(pool.clone(), 41), "BATCH#41"),
        (Key::Slot(pool.clone(), slot), "SLOT#41.7"),
        (Key::Nudge(pool.clone()), "NUDGE"),
        (Key::CheckRun(pool.clone(), JobId(5)), "CHECK#5"),
        (Key::Rerun(pool.clone(), JobId(5)), "RERUN#5"),
    ];
    for (key, sk) in of_pool {
        assert_eq!((key.pk().as_str(), key.sk().as_str(), key.pool()), ("POOL#linux", sk, Some(&pool)));
        assert_eq!(key.to_string(), format!("POOL#linux {sk}"));
        assert_eq!(Key::parse("POOL#linux", sk).expect(sk), key);
    }
    let others = [
        (Key::Job(JobId(5)), "JOB#5", "STATE"),
        (Key::Instance(InstanceId::from("i-1")), "INSTANCE#i-1", "STATE"),
        (Key::Config, "CONFIG", "POOLS"),
        (Key::Catalogue, "CONFIG", "CATALOGUE"),
        (Key::SpotPrices, "CONFIG", "MARKET"),
        (Key::Limit("octo".parse().expect("an account")), "GITHUB#octo", "LIMIT"),
        (Key::Runner("drover_ci_linux_e1_4_0_1".parse().expect("a name")), "RUNNER#drover_ci_linux_e1_4_0_1", "STATE"),
        (Key::Unrouted(JobId(7)), "UNROUTED", "JOB#7"),
        (Key::Janitor, "JANITOR", "LOCK"),
        (Key::Function(FunctionName::Scaler), "FUNCTION#scaler", "STATE"),
        (Key::Listing("octo".parse().expect("a scope")), "JANITOR", "RUNNERS#octo"),
        (Key::Listing("octo/widgets".parse().expect("a scope")), "JANITOR", "RUNNERS#octo/widgets"),
    ];
    for (key, pk, sk) in others {
        assert_eq!((key.pk().as_str(), key.sk().as_str(), key.pool()), (pk, sk, None));
        assert_eq!(Key::parse(pk, sk).expect(pk), key);
    }
    let upper: Owner = "Octo".parse().expect("an account");
    assert_eq!(Key::Limit(upper).pk(), "GITHUB#octo", "one account, one item");
    for (pk, sk) in [
        ("POOL#linux", "SLOT#41"),
        ("POOL#linux", "SLOT#041.7"),
        ("POOL#Linux", "META"),
        ("POOL#linux", "META#"),
        ("JOB#007", "STATE"),
        ("JOB#5", "META"),
        ("JANITOR#", "LOCK"),
        ("EVENT#linux", "1"),
    ] {
        let error = Key::parse(pk, sk).expect_err(pk).to_string();
        assert!(error.contains("is not a key that Drover writes") || error.contains("must be"), "{error}");
    }
}

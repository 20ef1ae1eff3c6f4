//! Mistakes in a pool file with shapes and caps: each is reported where it is, with what to write instead.

use drover::pool_file::PoolFile;

const NAME: &str = "pools.toml";

const POOL: &str = r#"[[pool]]
name = "any"
owner = "acme"
launch_templates = { x64 = "runner", arm64 = "runner-arm" }
market = "spot-then-on-demand"
max = 20
usd_per_hour = 40.0
[pool.shapes]
cpu = "1..32"
ram = "2..128"
arch = ["x64", "arm64"]
families = ["c7*", "m7*", "m8g"]
disk = "40..500"
market = ["spot", "on-demand"]
usd_per_hour = 2.0
"#;

fn findings(text: &str) -> (Vec<String>, Vec<String>) {
    let file = PoolFile::parse(NAME, text);
    let texts = |findings: &[drover::pool_file::Finding]| findings.iter().map(ToString::to_string).collect();
    (texts(&file.errors), texts(&file.warnings))
}

/// The pool with a line replaced.
fn with(line: &str, instead: &str) -> String {
    assert!(POOL.contains(line), "{line} is not a line of the pool");
    POOL.replacen(line, instead, 1)
}

#[test]
fn the_example_has_no_mistakes() {
    assert_eq!(findings(POOL), (Vec::new(), Vec::new()));
    // Nothing but what must be there.
    let least = "[[pool]]\nname = \"any\"\nowner = \"acme\"\nmax = 1\nlaunch_templates = { x64 = \"runner\" }\n\
                 [pool.shapes]\ncpu = \"8\"\nram = \"2..128\"\narch = [\"x64\"]\n";
    assert_eq!(findings(least), (Vec::new(), Vec::new()));
}

#[test]
fn defaults_for_other_pools_are_none_for_a_pool_with_shapes() {
    let defaults = "[defaults]\nlaunch_template = \"runner\"\nlaunch_template_version = 3\n\
                    instance_types = [\"m7i.large\"]\nlaunch_templates = { arm64 = \"runner-arm\" }\n";
    let other = "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"linux\"]\nmax = 1\n";
    assert_eq!(findings(&format!("{defaults}{POOL}{other}")), (Vec::new(), Vec::new()));
}

#[test]
fn each_mistake_is_an_error_that_names_the_fix() {
    let mistakes = [
        (
            "arch = [\"x64\", \"arm64\"]\n",
            "",
            "pools.toml:8:7: the pool has no shapes.arch: write arch = [\"x64\"], the",
        ),
        ("cpu = \"1..32\"\n", "", "pools.toml:8:7: the pool has no shapes.cpu: write cpu = \"1..32\", the vCPUs"),
        ("ram = \"2..128\"\n", "", "the pool has no shapes.ram: write ram = \"2..128\""),
        (
            "[\"x64\", \"arm64\"]",
            "[]",
            "pools.toml:11:1: shapes.arch: at least one is required, such as arch = [\"x64\"]",
        ),
        ("[\"x64\", \"arm64\"]", "[\"x64\", \"x64\"]", "pools.toml:11:16: shapes.arch: x64 is listed twice"),
        (
            "[\"x64\", \"arm64\"]",
            "[\"x64\", \"ARM64\"]",
            "pools.toml:11:16: shapes.arch: unknown value ARM64, expected x64 or arm64, did you mean arm64?",
        ),
        ("[\"x64\", \"arm64\"]", "\"x64\"", "pools.toml:11:8: shapes.arch must be a list"),
        (
            "[\"spot\", \"on-demand\"]",
            "[]",
            "pools.toml:14:1: shapes.market: at least one is required, spot or on-demand",
        ),
        (
            "[\"spot\", \"on-demand\"]",
            "[\"Spot\"]",
            "unknown value Spot, expected on-demand or spot, did you mean spot?",
        ),
        (
            "[\"spot\", \"on-demand\"]",
            "[\"spot\"]",
            "shapes.market: lacks on-demand, which market = \"spot-then-on-demand\" gives to jobs that ask for none; add it here",
        ),
        (
            "\"1..32\"",
            "\"0..4\"",
            "pools.toml:9:7: shapes.cpu: write a range such as \"2..32\", or one number; from 1 to 100000",
        ),
        ("\"1..32\"", "\"32..1\"", "shapes.cpu: write a range such as \"2..32\""),
        ("\"1..32\"", "8", "pools.toml:9:7: shapes.cpu: must be a text in quotes, not the number 8"),
        ("\"2..128\"", "\"2-128\"", "pools.toml:10:7: shapes.ram: write a range such as \"2..32\""),
        ("\"40..500\"", "\"0..500\"", "pools.toml:13:8: shapes.disk: write a range such as"),
        (
            "\"40..500\"",
            "\"40..70000\"",
            "pools.toml:13:1: shapes.disk: a volume has at most 65536 GiB; end the range there",
        ),
        ("\"m8g\"", "\"m8h\"", "pools.toml:12:27: shapes.families: EC2 has no family m8h (aws-sdk-ec2 "),
        ("\"m8g\"", "\"m7ii*\"", ", did you mean m7i?"),
        ("\"m8g\"", "\"M8g\"", "pools.toml:12:27: shapes.families: write an instance family such as \"m7i\""),
        (
            "[\"c7*\", \"m7*\", \"m8g\"]",
            "[\"m8g\"]",
            "pools.toml:11:1: shapes.arch: shapes.families has no family with x64 machines: add one, or remove x64 from arch",
        ),
        (
            ", arm64 = \"runner-arm\" }",
            " }",
            "pools.toml:4:1: launch_templates: none for arm64, which shapes.arch allows; write launch_templates = { arm64 = ",
        ),
        ("\"runner-arm\"", "\"\"", "launch_templates: that of arm64 must be a name or an id"),
        ("arm64 = \"runner-arm\"", "arm = \"runner-arm\"", "unknown value arm, expected x64 or arm64"),
        ("launch_templates = { x64 = \"runner\", arm64 = \"runner-arm\" }\n", "", "launch_templates: none for x64"),
        (
            "max = 20\n",
            "max = 20\nlaunch_template = \"runner\"\n",
            "launch_template: a pool with [pool.shapes] has launch_templates",
        ),
        (
            "max = 20\n",
            "max = 20\nlaunch_template_version = 3\n",
            "launch_template_version: the default version of each template",
        ),
        ("max = 20\n", "max = 20\ninstance_types = [\"m7i.large\"]\n", "limit them with families"),
        (
            "max = 20\n",
            "max = 20\nlabels = [\"big\", \"ANY/big\"]\n",
            "labels: any/big would be read as a shape of pool any",
        ),
        ("max = 20\n", "max = 20\ncpu = \"2\"\n", "pools.toml:7:1: unknown field cpu: cpu is a field of [pool.shapes]"),
        (
            "disk = \"40..500\"\n",
            "disk = \"40..500\"\nmax = 3\n",
            "pools.toml:14:1: unknown field shapes.max: max is a field of the pool, write it above [pool.shapes]",
        ),
        ("disk = \"40..500\"", "disc = \"40..500\"", "unknown field shapes.disc, did you mean shapes.disk?"),
        (
            "usd_per_hour = 40.0",
            "usd_per_hour = 0",
            "pools.toml:7:16: usd_per_hour: must be an amount of USD from 0.0001",
        ),
        ("usd_per_hour = 2.0", "usd_per_hour = -1.0", "shapes.usd_per_hour: must be an amount of USD"),
        ("usd_per_hour = 2.0", "usd_per_hour = nan", "shapes.usd_per_hour: must be an amount of USD"),
    ];
    for (line, instead, expected) in mistakes {
        let (errors, _) = findings(&with(line, instead));
        assert!(errors.iter().any(|error| error.contains(expected)), "{instead}: {errors:#?}\nlacks {expected}");
    }
    let (errors, _) = findings("[[pool]]\nname = \"any\"\nowner = \"acme\"\nmax = 1\nshapes = true\n");
    assert_eq!(errors, ["pools.toml:5:10: shapes must be a table that begins with [pool.shapes], not of type boolean"]);
}

#[test]
fn a_mistake_is_reported_once_and_all_of_them_at_the_same_time() {
    let text =
        with("\"1..32\"", "\"0..4\"").replace("[\"x64\", \"arm64\"]", "[\"arm\"]").replace("\"40..500\"", "true");
    let (errors, _) = findings(&text);
    let lines: Vec<&str> = errors.iter().map(|error| error.split(':').nth(1).unwrap_or_default()).collect();
    assert_eq!(lines, ["9", "11", "13"], "{errors:#?}");
}

#[test]
fn a_cap_that_pays_for_no_machine_is_an_error_and_one_for_spot_prices_only_is_a_warning() {
    let capped = |of_pool: &str, of_machine: &str| {
        with("usd_per_hour = 40.0\n", of_pool).replace("usd_per_hour = 2.0\n", of_machine)
    };
    // In no region a machine of these families costs less than 0.0245 USD on demand, and a spot machine costs at least a tenth.
    let (errors, warnings) = findings(&capped("", "usd_per_hour = 0.002\n"));
    let none = "pools.toml:14:1: shapes.usd_per_hour: 0.0020 USD pays for no machine: c7g.medium, the cheapest machine that the \
                pool allows, costs 0.0245 USD per hour on demand (in ap-south-1, list price of 2026-11-25); raise the cap or \
                allow smaller machines";
    assert_eq!((errors, warnings), (vec![none.to_owned()], Vec::new()));
    let (errors, warnings) = findings(&capped("usd_per_hour = 0.02\n", ""));
    assert!(errors.is_empty() && warnings.len() == 1, "{errors:?} {warnings:?}");
    assert!(
        warnings[0].starts_with("pools.toml:7:1: usd_per_hour: 0.0200 USD pays for spot machines at most: "),
        "{warnings:?}"
    );
    // Without spot there is no doubt.
    let on_demand = capped("usd_per_hour = 0.02\n", "").replace("market = \"spot-then-on-demand\"\n", "");
    let on_demand = on_demand.replace("market = [\"spot\", \"on-demand\"]\n", "");
    assert!(findings(&on_demand).0[0].contains("usd_per_hour: 0.0200 USD pays for no machine"), "{on_demand}");
    // A cheaper machine that the range of vCPUs excludes does not count.
    let large = on_demand.replace("0.02\n", "0.3\n").replace("\"1..32\"", "\"16..32\"");
    assert!(findings(&large).0[0].contains("c7g.4xlarge, the cheapest machine"), "{:?}", findings(&large));
    assert_eq!(findings(&large.replace("\"16..32\"", "\"8..32\"")), (Vec::new(), Vec::new()));
    // EC2's price list of this drover lacks these families.
    let unpriced = POOL.replace("[\"c7*\", \"m7*\", \"m8g\"]", "[\"p5\", \"a1\"]");
    let (errors, _) = findings(&unpriced);
    assert!(
        errors.len() == 2 && errors.iter().all(|it| it.contains("a machine without a known price is not launched")),
        "{errors:?}"
    );
    let (_, warnings) = findings(&with("usd_per_hour = 2.0", "usd_per_hour = 41"));
    assert!(
        warnings[0].contains(
            "shapes.usd_per_hour: 41.00 USD is more than all machines of the pool may cost together, 40.00 USD"
        )
    );
}

/// A pool whose jobs name its labels.
fn plain(name: &str, labels: &str, more: &str) -> String {
    format!(
        "[[pool]]\nname = \"{name}\"\nowner = \"acme\"\nlabels = {labels}\nlaunch_template = \"runner\"\n\
         instance_types = [\"m7i.large\"]\nmax = 3\n{more}"
    )
}

#[test]
fn a_pool_without_shapes_may_have_a_cap_and_no_templates_by_architecture() {
    assert_eq!(findings(&plain("linux", "[\"linux\"]", "usd_per_hour = 5")), (Vec::new(), Vec::new()));
    let (errors, _) = findings(&plain("linux", "[\"linux\"]", "usd_per_hour = 0.1"));
    assert!(errors[0].contains("usd_per_hour: 0.1000 USD pays for no machine: m7i.large"), "{errors:?}");
    let (errors, _) = findings(&plain("linux", "[\"linux\"]", "launch_templates = { x64 = \"a\" }"));
    assert!(errors[0].contains("only a pool with [pool.shapes] has several; write launch_template"), "{errors:?}");
}

#[test]
fn no_pool_has_a_label_that_reads_as_a_shape_of_another() {
    let shadowed = plain("linux", "[\"linux\", \"Any/8cpu\"]", "");
    for text in [format!("{POOL}{shadowed}"), format!("{shadowed}{POOL}")] {
        let (errors, _) = findings(&text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let expected = "labels: any/8cpu would be read as a shape of pool any; use one that does not begin with any/";
        assert!(errors[0].ends_with(expected) && errors[0].contains(":20: "), "{errors:?}");
    }
    // A name that is the beginning of another name, and labels that begin with a name, are no shapes.
    let others = plain("any-arm", "[\"any-arm/8cpu\", \"anything\", \"any\", \"any8cpu\", \"x/any/8cpu\"]", "");
    assert_eq!(findings(&format!("{POOL}{others}")), (Vec::new(), Vec::new()));
    let second = POOL.replace("name = \"any\"", "name = \"an\"");
    assert_eq!(findings(&format!("{POOL}{second}")), (Vec::new(), Vec::new()), "labels of shapes are never the same");
}

#[test]
fn the_cap_of_the_stack_bounds_the_sum_of_the_pools_caps() {
    let pools = format!("{}{}", plain("linux", "[\"linux\"]", "usd_per_hour = 5\n"), POOL);
    assert_eq!(findings(&format!("[stack]\nusd_per_hour = 45\n{pools}")), (Vec::new(), Vec::new()));
    let (errors, _) = findings(&format!("[stack]\nusd_per_hour = 44.99\n{pools}"));
    let expected = "pools.toml:2:1: usd_per_hour: 44.99 USD is less than the caps of the pools together, 45.00 USD (linux 5.00, \
                    any 40.00); raise it, or lower theirs";
    assert_eq!(errors, [expected]);
    let (errors, _) = findings(&format!("[stack]\nusd_per_hour = 45\n{}", pools.replace("usd_per_hour = 5\n", "")));
    let expected = "pools.toml:3:1: pool linux has no usd_per_hour, and with a cap in [stack] each pool needs one: write \
                    usd_per_hour = AMOUNT here or in [defaults]";
    assert_eq!(errors, [expected]);
    let (errors, _) = findings(&format!(
        "[stack]\nusd_per_hour = 45\n[defaults]\nusd_per_hour = 3\n{}",
        pools.replace("usd_per_hour = 5\n", "")
    ));
    assert_eq!(errors, Vec::<String>::new(), "from [defaults]");
    for (stack, expected) in [
        ("[stack]\nusd_per_hours = 4\n", "pools.toml:2:1: unknown field usd_per_hours, did you mean usd_per_hour?"),
        ("[stack]\nusd_per_hour = \"4\"\n", "pools.toml:2:16: usd_per_hour: must be a number, not the text"),
        ("stack = 4\n", "pools.toml:1:1: stack must be a table that begins with [stack]"),
        ("[[stack]]\n", "pools.toml:1:3: stack must be a table that begins with [stack]"),
    ] {
        let (errors, _) = findings(&format!("{stack}{pools}"));
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{stack}: {errors:?}");
    }
}

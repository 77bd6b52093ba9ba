//! Files in the shapes of the original's documentation and tests, each with the exact file that is
//! made of it. `tests/it/proxy/import.rs` starts the proxy with each.

use super::swiftiply;

/// The YAML and the flat file of each.
macro_rules! corpus {
    ($($name:literal)*) => {
        &[$((
            $name,
            include_str!(concat!("corpus/", $name, ".yml")),
            include_str!(concat!("corpus/", $name, ".conf")),
        )),*]
    };
}

const CORPUS: &[(&str, &str, &str)] = corpus!(
    "authentication" "caches" "defaults" "filters" "groups" "loggers" "managers" "page_cache"
    "process" "redeployable" "redis" "ssl" "static_files" "staticmask" "tests"
    "traditional" "updates" "updates_elsewhere" "xsendfile"
);

#[test]
fn every_file_becomes_exactly_what_it_should() {
    for (name, yaml, expected) in CORPUS {
        let imported = swiftiply(yaml, &format!("{name}.yml"));
        let text = imported.map_err(|problems| format!("{name}: {problems:?}")).unwrap().text;
        assert_eq!(text, *expected, "{name}");
    }
}

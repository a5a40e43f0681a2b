//! The verb replicas: who may write, what tombstones wait for, and the two ways of a person to have
//! them wait no longer.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use peer_table::StoreId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use ureq::http::Method;

use super::args::Format;
use super::client::{Client, Patience};
use super::console::Console;
use super::failure::Failure;
use super::output;

const PATH: &str = "/v1/replicas";
/// The columns of the list.
const HEADS: [&str; 5] = ["STORE", "PEER ID", "STORAGE", "FLOOR", "HEARD OF"];

/// Show which replicas are known, and what deleted records are remembered for
///
/// A deleted record leaves once every replica has heard that it was deleted. What keeps the first of
/// them, and by whom, is said above the table.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager replicas
  udht-manager replicas -o json | jq .heldBack
  udht-manager replicas give-up 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11
  udht-manager replicas start-over")]
pub(crate) struct ReplicasArgs {
    #[command(subcommand)]
    verb: Option<ReplicasVerb>,
}

#[derive(Subcommand, Debug)]
enum ReplicasVerb {
    /// Give up a replica that will not come back: tombstones wait for it no longer
    ///
    /// If it does come back, its store starts over, and what only it had is lost. By itself that
    /// happens after --tombstone-max-age without a sign of it; and at once when Kubernetes says that a
    /// pod is gone whose store goes with it.
    #[command(after_help = "Examples:
  udht-manager replicas give-up 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11
  udht-manager replicas give-up 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11 --yes")]
    GiveUp {
        /// The id of its store, as `udht-manager replicas` lists it; of one without, the id in brackets
        #[arg(value_name = "STORE", value_parser = store_id)]
        store: StoreId,
        /// Do it without being asked
        #[arg(long)]
        yes: bool,
    },
    /// Empty the table of this replica; its peers fill it again
    ///
    /// What only this replica has is lost. It is for a replica that has given up another which has
    /// given it up too: one of the two has to start over, and a person says which.
    #[command(after_help = "Examples:
  udht-manager replicas start-over
  kubectl exec -it POD -c manager -- /udht-manager replicas start-over")]
    StartOver {
        /// Do it without being asked
        #[arg(long)]
        yes: bool,
    },
}

fn store_id(text: &str) -> Result<StoreId, &'static str> {
    let problem = "it is the UUID of a store, as `udht-manager replicas` lists them";
    text.parse().map_err(|_| problem)
}

/// What a manager tells of the replicas.
#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "the fields of the contract"
)]
struct Replicas {
    belongs: bool,
    tombstones: u64,
    #[serde(rename = "heldBack")]
    held_back: Option<Holder>,
    braked: bool,
    #[serde(rename = "massSilence")]
    mass_silence: bool,
    mutual: bool,
    /// An earlier manager does not say.
    #[serde(rename = "mutualWith", default)]
    mutual_with: Vec<String>,
    replicas: Vec<Replica>,
    fenced: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Holder {
    reason: String,
    replica: Option<String>,
}

#[derive(Deserialize)]
struct Replica {
    store: Option<String>,
    origin: String,
    peer_id: Option<String>,
    storage: Option<String>,
    own: bool,
    floor: Option<String>,
    #[serde(rename = "heardAt")]
    heard_at: Option<String>,
}

/// The answer to a change: which store it is about.
#[derive(Deserialize)]
struct Store {
    store: String,
}

impl ReplicasArgs {
    /// Prints the replicas, or changes something about them and says so.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let (path, done) = match &self.verb {
            None => return list(client, format, console),
            Some(ReplicasVerb::GiveUp { store, yes }) => {
                let question = format!(
                    "The replica {store} is given up: if it comes back, what only it has is lost."
                );
                console.confirm(&question, *yes)?;
                let done = "given up:";
                (format!("{PATH}/{store}/give-up"), done)
            }
            Some(ReplicasVerb::StartOver { yes }) => {
                let question = format!(
                    "The table of the manager at {} is emptied, and filled again by its peers: \
                     what only it has is lost.",
                    client.manager()
                );
                console.confirm(&question, *yes)?;
                let done = "started over, as the store";
                (format!("{PATH}/start-over"), done)
            }
        };
        let request = client.request(Method::POST, &path, &[]);
        let (json, changed) = client
            .send(request, "", Patience::Work)?
            .json_as_sent::<Store>()?;
        match format {
            Format::Json => console.say(&json),
            Format::Table => console.say(&format!("{done} {}", output::cell(&changed.store))),
        }
    }
}

fn list(client: &Client, format: Format, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = client.request(Method::GET, PATH, &[]);
    let (json, known) = client
        .send(request, (), Patience::Record)?
        .json_as_sent::<Replicas>()?;
    match format {
        Format::Json => console.say(&json),
        Format::Table => show(&known, console),
    }
}

fn show(known: &Replicas, console: &mut Console<'_>) -> Result<(), Failure> {
    let deleted = match known.tombstones {
        0 => "no deleted record is remembered".to_owned(),
        1 => "1 deleted record is remembered".to_owned(),
        count => format!("{count} deleted records are remembered"),
    };
    let holder = known.held_back.as_ref().map(Holder::to_text);
    console.say(&format!("{deleted}{}", holder.unwrap_or_default()))?;
    let with = known.mutual_with.iter().map(|it| output::cell(it));
    let with: Vec<_> = with.collect();
    let mutual = format!(
        "this replica and {} have given each other up: on the one whose records may be dropped, run \
         `udht-manager replicas start-over`",
        if with.is_empty() {
            "another".to_owned()
        } else {
            format!("the store {}", with.join(", "))
        }
    );
    let notes = [
        (
            !known.belongs,
            "this replica has exchanged with nobody yet, and takes no pushes until it has",
        ),
        (
            known.braked,
            "nobody is taken for gone, as what Kubernetes says cannot be relied on now",
        ),
        (
            known.mass_silence,
            "nobody is given up, as more than half of the others are silent",
        ),
        (known.mutual, &mutual),
    ];
    for (_, note) in notes.iter().filter(|(holds, _)| *holds) {
        console.say(note)?;
    }
    console.say("")?;
    let now = console.now;
    let rows: Vec<_> = known.replicas.iter().map(|it| it.row(now)).collect();
    output::rows(console.out, HEADS, &rows).map_err(Failure::Output)?;
    match known.fenced.len() {
        0 => Ok(()),
        1 => console.say("\n1 opening writes no more and is still remembered"),
        count => console.say(&format!(
            "\n{count} openings write no more and are still remembered"
        )),
    }
}

impl Holder {
    /// Why tombstones wait, and for whom.
    fn to_text(&self) -> String {
        let why = match self.reason.as_str() {
            "stranger" => "a pod is listed of which nothing is known",
            "silent" => "it has not published yet",
            "set" => "it knows other replicas",
            "since" | "covered" => "not all that it has is here",
            "published" => "it has not said yet that all is there",
            later => later,
        };
        let why = output::cell(why);
        match &self.replica {
            Some(replica) => format!(", for the replica {}: {why}", output::cell(replica)),
            None => format!(": {why}"),
        }
    }
}

impl Replica {
    fn row(&self, now: SystemTime) -> [String; HEADS.len()] {
        let text = |text: &Option<String>| output::cell(text.as_deref().unwrap_or_default());
        let age = |time: &Option<String>| match time {
            Some(time) => output::ago(time, now).unwrap_or_else(|| output::cell(time)),
            None => "-".to_owned(),
        };
        let heard = if self.own {
            "this one".to_owned()
        } else {
            age(&self.heard_at)
        };
        [
            match &self.store {
                Some(store) => output::cell(store),
                None => format!("? ({})", output::cell(&self.origin)),
            },
            text(&self.peer_id),
            text(&self.storage),
            age(&self.floor),
            heard,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, json, problem};

    const STORE: &str = "0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11";

    const KNOWN: &str = r#"{"store":"07070707-0707-0707-0707-070707070707","belongs":true,"tombstones":3,"floor":"2026-01-31T09:30:00.000Z","heldBack":{"reason":"covered","replica":"0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11"},"braked":false,"massSilence":false,"mutual":false,"replicas":[{"store":"07070707-0707-0707-0707-070707070707","origin":"11111111-1111-1111-1111-111111111111","peer_id":"files-0","storage":"volume","own":true,"floor":"2026-01-31T09:30:00.000Z","publishedAt":"2026-01-31T10:29:00.000Z","coveredUpTo":null,"heardAt":null},{"store":"0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11","origin":"22222222-2222-2222-2222-222222222222","peer_id":"files-1","storage":"pod","own":false,"floor":null,"publishedAt":"2026-01-31T07:30:00.000Z","coveredUpTo":"2026-01-31T07:30:00.000Z","heardAt":"2026-01-29T10:00:00.000Z"},{"store":null,"origin":"33333333-3333-3333-3333-333333333333","peer_id":null,"storage":null,"own":false,"floor":null,"publishedAt":null,"coveredUpTo":null,"heardAt":"2026-01-31T10:29:00.000Z"}],"fenced":[{"origin":"44444444-4444-4444-4444-444444444444","reason":"ended","since":null}]}"#;

    #[test]
    fn the_replicas_are_a_table_under_what_tombstones_wait_for() {
        let canned = Canned::new([json(KNOWN)]);
        let expected = "\
3 deleted records are remembered, for the replica 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11: not all that it has is here

STORE                                     PEER ID  STORAGE  FLOOR   HEARD OF
07070707-0707-0707-0707-070707070707      files-0  volume   1h ago  this one
0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11      files-1  pod      -       2d ago
? (33333333-3333-3333-3333-333333333333)  -        -        -       1m ago

1 opening writes no more and is still remembered
";
        assert_eq!(canned.run(&["replicas"]).out, expected);
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("GET /v1/replicas "),
            "{}",
            requests[0]
        );
    }

    #[test]
    fn what_a_person_has_to_know_of_the_replicas_is_said_in_words() {
        let mut known: serde_json::Value = serde_json::from_str(KNOWN).unwrap();
        for (field, value) in [
            ("belongs", false),
            ("braked", true),
            ("massSilence", true),
            ("mutual", true),
        ] {
            known[field] = value.into();
        }
        known["mutualWith"] = serde_json::json!([STORE]);
        known["tombstones"] = 0.into();
        known["heldBack"] = serde_json::Value::Null;
        let canned = Canned::new([json(&known.to_string())]);
        let out = canned.run(&["replicas"]).out;
        for part in [
            "no deleted record is remembered\n",
            "exchanged with nobody",
            "nobody is taken for gone",
            "more than half of the others are silent",
            &format!("this replica and the store {STORE} have given each other up"),
            "run `udht-manager replicas start-over`",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
    }

    #[test]
    fn the_json_is_what_the_manager_sent() {
        let with_more = KNOWN.replacen('{', r#"{"later":{"b":1,"a":2},"#, 1);
        let answer = format!(r#"{{"store":"{STORE}"}}"#);
        let canned = Canned::new([json(&with_more), json(&answer)]);
        let ran = canned.run(&["replicas", "-o", "json"]);
        assert_eq!(ran.out, format!("{with_more}\n"));
        let ran = canned.run(&["replicas", "start-over", "--yes", "-o", "json"]);
        assert_eq!(ran.out, format!("{answer}\n"));
    }

    #[test]
    fn what_cannot_be_taken_back_is_done_once_somebody_said_yes() {
        let answer = format!(r#"{{"store":"{STORE}"}}"#);
        let canned = Canned::new([json(&answer), json(&answer), json(&answer), json(&answer)]);
        let (give_up, over) = (["replicas", "give-up", STORE], ["replicas", "start-over"]);
        for (line, asked) in [
            (
                &give_up[..],
                "if it comes back, what only it has is lost. Go on? [y/N] ",
            ),
            (&over[..], "what only it has is lost. Go on? [y/N] "),
        ] {
            let ran = canned.run_with_input(line, "no\n", true);
            assert_eq!((ran.code(), ran.out.as_str()), (1, ""), "{ran:?}");
            assert!(ran.err.ends_with(asked), "{ran:?}");
            let ran = canned.run_with_input(line, "y\n", true);
            assert_eq!(ran.code(), 0, "{ran:?}");
            let ran = canned.run(line);
            assert_eq!(ran.code(), 2, "without a terminal: {ran:?}");
            assert!(ran.failure().contains("--yes"), "{ran:?}");
            let ran = canned.run(&[line, &["--yes"]].concat());
            assert_eq!((ran.code(), ran.err.as_str()), (0, ""), "{ran:?}");
            assert!(ran.out.ends_with(&format!(" {STORE}\n")), "{ran:?}");
        }
        let paths: Vec<_> = canned.requests();
        let wanted = [
            format!("POST /v1/replicas/{STORE}/give-up "),
            "POST /v1/replicas/start-over ".to_owned(),
        ];
        for (number, request) in paths.iter().enumerate() {
            assert!(request.starts_with(&wanted[number / 2]), "{request}");
        }
    }

    #[test]
    fn what_is_no_store_is_refused_with_where_stores_are_listed() {
        let refused = super::store_id("pod-1").unwrap_err();
        assert!(refused.contains("`udht-manager replicas`"), "{refused}");
        assert_eq!(super::store_id(STORE), Ok(STORE.parse().unwrap()));
    }

    #[test]
    fn a_store_that_nobody_knows_is_a_refusal_with_its_own_exit_code() {
        let canned = Canned::new([problem(404, "no other replica", "store")]);
        let ran = canned.run(&["replicas", "give-up", STORE, "--yes"]);
        assert_eq!(ran.code(), 3, "{ran:?}");
        let garbage = Canned::new([json("{}")]).run(&["replicas"]);
        assert!(garbage.failure().contains("is not what was asked"));
    }
}

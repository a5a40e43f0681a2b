//! Commits that were under way when the power went: some of their sectors are on the disk.

use super::*;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// The sector by which redb tells which commit is the last.
const HEADER: usize = 0;

/// A file before and after a commit, as a kill would have left it, and what is in it then.
struct Commits {
    home: Home,
    before: (Vec<u8>, BTreeMap<String, Stored>),
    after: (Vec<u8>, BTreeMap<String, Stored>),
}

impl Commits {
    async fn new() -> Self {
        let home = Home::new().await;
        let store = home.embedded(1).expect("opens");
        let write = |numbers: std::ops::Range<usize>, reading: u64| {
            commit(numbers.map(move |number| (key(number), entry(reading, &[7; 300]))))
        };
        store.commit(write(0..300, 1)).await.expect("commits");
        store.commit(write(100..200, 2)).await.expect("commits");
        let file = || fs::read(home.path()).expect("reads");
        let before = (file(), scan(&store, &peers()).await);
        store.commit(write(150..350, 3)).await.expect("commits");
        let after = (file(), scan(&store, &peers()).await);
        drop(store);
        Self {
            home,
            before,
            after,
        }
    }

    /// The file with those sectors of the commit that `is_written` says.
    fn torn(&self, is_written: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut file = self.before.0.clone();
        file.resize(self.after.0.len(), 0);
        let sectors = file.chunks_mut(SECTOR_BYTES).enumerate();
        for (number, sector) in sectors.filter(|(number, _)| is_written(*number)) {
            let start = number * SECTOR_BYTES;
            sector.copy_from_slice(&self.after.0[start..start + sector.len()]);
        }
        file
    }

    /// What is read from such a file, if it opens.
    async fn read(&self, file: &[u8]) -> Result<BTreeMap<String, Stored>, StoreError> {
        fs::write(self.home.path(), file).expect("writes");
        let store = self.home.embedded(2)?;
        Ok(scan(&store, &peers()).await)
    }
}

/// Whether a sector is written in this round: few of them are, half of them, or nearly all.
fn drawn(round: usize, sector: usize) -> bool {
    let drawn = ((round << 32 | sector) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let drawn = (drawn ^ drawn >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56;
    drawn < [16, 128, 240][round % 3]
}

#[tokio::test]
async fn a_commit_that_was_not_done_leaves_the_one_before_whatever_of_it_reached_the_disk() {
    let commits = Commits::new().await;
    for round in 0..60 {
        let file = commits.torn(|sector| sector != HEADER && drawn(round, sector));
        let read = commits.read(&file).await.expect("opens");
        assert!(read == commits.before.1, "round {round}");
    }
}

#[tokio::test]
async fn a_commit_of_which_a_disk_lied_is_there_or_not_or_the_file_is_said_to_be_damaged() {
    let commits = Commits::new().await;
    let (mut before, mut after, mut damaged) = (0, 0, 0);
    for round in 0..60 {
        let file = commits.torn(|sector| sector == HEADER || drawn(round, sector));
        match commits.read(&file).await {
            Ok(read) if read == commits.before.1 => before += 1,
            Ok(read) if read == commits.after.1 => after += 1,
            Ok(_) => panic!("round {round}: neither the one nor the other"),
            Err(StoreError::Damaged { .. }) => damaged += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!(
        before + damaged > 40,
        "{before} before, {after} after, {damaged} damaged"
    );
    let whole = commits.torn(|_| true);
    assert!(commits.read(&whole).await.expect("opens") == commits.after.1);
}

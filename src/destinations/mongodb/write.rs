//! Writing a batch: a few commands, each judged document by document.
//!
//! Always true: a majority of the cluster has what is called done; a document that is there already is proof that it was
//! written before. Not here: what a document holds (`document`).

use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::cluster::Cluster;
use super::document::{DELETE, INSERT, UPDATE};
use super::verdicts::{self, DUPLICATE_KEY};
use crate::destinations::driver::{Answer, Fault, Frozen, Part, Verdict};
use crate::domain::trouble::Trouble;

/// A command is a document itself, and may be 16 KiB larger than one (MongoDB's `BSONObjMaxInternalSize`); a document of
/// the largest size is a command of its own.
const COMMAND_MAX_BYTES: usize = 15 << 20;
/// Documents of a command at most: what the server says of itself in `maxWriteBatchSize`.
const COMMAND_MAX_DOCUMENTS: usize = 100_000;
/// How long a majority of the cluster is waited for.
const MAJORITY_TIMEOUT_MS: i32 = 30_000;

/// Writes all parts of a batch.
pub(super) async fn batch(cluster: &Cluster, frozen: &Frozen) -> Answer {
    let mut verdicts = vec![Verdict::Done; frozen.items];
    for part in &frozen.parts {
        match write(cluster, part).await {
            Ok(refused) => {
                for (place, verdict) in refused {
                    // What concerns all concerns all: the batch is repeated, which changes nothing that is written.
                    if matches!(verdict, Verdict::Config(_)) {
                        return Answer::All(verdict);
                    }
                    let item = part.items.get(place).and_then(|item| verdicts.get_mut(*item));
                    if let Some(item) = item {
                        *item = verdict;
                    }
                }
            }
            Err(verdict) => return Answer::All(verdict),
        }
    }
    if let Some(verdict) = again(frozen, &verdicts) {
        return Answer::All(verdict);
    }
    if verdicts.iter().all(|verdict| *verdict == Verdict::Done) {
        Answer::All(Verdict::Done)
    } else {
        Answer::Each(verdicts)
    }
}

/// A change that is written after the deletion of its record would bring it back for good, since nothing remembers the
/// deletion: where there are deletions, all is repeated for what was not written.
fn again(frozen: &Frozen, verdicts: &[Verdict]) -> Option<Verdict> {
    let deletes = frozen.parts.iter().any(|part| part.target.starts_with(DELETE));
    verdicts.iter().find(|verdict| deletes && matches!(verdict, Verdict::Retry(_))).cloned()
}

/// The documents of a part that were not written, by their place in it.
async fn write(cluster: &Cluster, part: &Part) -> Result<Vec<(usize, Verdict)>, Verdict> {
    let unreadable = || Verdict::Retry(Fault::new(Trouble::Failed, "the frozen batch cannot be read"));
    let (verb, collection) = part.target.split_once(' ').ok_or_else(unreadable)?;
    let documents = documents(&part.body).ok_or_else(unreadable)?;
    let all: Vec<usize> = (0..documents.len()).collect();
    let mut refused = run(cluster, verb, collection, &documents, &all).await?;
    if verb == UPDATE {
        // Another writer may have made the document between the look and the insert, and an older one. It is there now,
        // so a second refusal proves that it is as late as ours.
        let again: Vec<usize> = refused.iter().filter(|failed| failed.is_there).map(|failed| failed.place).collect();
        if !again.is_empty() {
            refused.retain(|failed| !failed.is_there);
            refused.append(&mut run(cluster, verb, collection, &documents, &again).await?);
        }
    }
    refused.retain(|failed| !failed.is_there);
    Ok(refused.into_iter().map(|failed| (failed.place, failed.verdict)).collect())
}

/// A document that was refused.
struct Refused {
    /// In its part.
    place: usize,
    /// Because there is one of its id.
    is_there: bool,
    verdict: Verdict,
}

async fn run(
    cluster: &Cluster,
    verb: &str,
    collection: &str,
    documents: &[&RawDocument],
    places: &[usize],
) -> Result<Vec<Refused>, Verdict> {
    let mut refused = Vec::new();
    for chunk in chunks(documents, places) {
        let mut entries = RawArrayBuf::new();
        for document in chunk.iter().filter_map(|place| documents.get(*place)) {
            entries.push(*document);
        }
        let answer = cluster.run(command(verb, collection, entries)).await?;
        let errors = answer.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        for error in errors.iter().filter_map(Bson::as_document) {
            let index = number(error, "index").and_then(|index| usize::try_from(index).ok());
            if let Some(place) = index.and_then(|index| chunk.get(index)) {
                refused.push(judge(error, *place));
            }
        }
        if let Ok(error) = answer.get_document("writeConcernError") {
            let code = number(error, "code").unwrap_or(64);
            let verdict = match verdicts::coded(code, error.get_str("errmsg").unwrap_or_default()) {
                // It may be written, but nobody can say that it stays.
                Verdict::Row(fault) => Verdict::Retry(fault),
                verdict => verdict,
            };
            return Err(verdict);
        }
    }
    Ok(refused)
}

fn command(verb: &str, collection: &str, entries: RawArrayBuf) -> RawDocumentBuf {
    let concern = rawdoc! { "w": "majority", "wtimeout": MAJORITY_TIMEOUT_MS };
    match verb {
        INSERT => rawdoc! { "insert": collection, "ordered": false, "writeConcern": concern, "documents": entries },
        DELETE => rawdoc! { "delete": collection, "ordered": false, "writeConcern": concern, "deletes": entries },
        _ => rawdoc! { "update": collection, "ordered": false, "writeConcern": concern, "updates": entries },
    }
}

fn judge(error: &Document, place: usize) -> Refused {
    let code = number(error, "code").unwrap_or_default();
    let message = error.get_str("errmsg").unwrap_or_default();
    // Servers before 4.4 tell the key only in words. Another unique index is the owner's, and refuses the document.
    let is_id = match error.get_document("keyPattern") {
        Ok(pattern) => pattern.len() == 1 && pattern.contains_key("_id"),
        Err(_) => message.contains("index: _id_ "),
    };
    Refused { place, is_there: code == DUPLICATE_KEY && is_id, verdict: verdicts::coded(code, message) }
}

fn number(document: &Document, name: &str) -> Option<i32> {
    match document.get(name)? {
        Bson::Int32(number) => Some(*number),
        Bson::Int64(number) => i32::try_from(*number).ok(),
        _ => None,
    }
}

/// The documents of a part: each begins with its length.
fn documents(body: &[u8]) -> Option<Vec<&RawDocument>> {
    let (mut rest, mut all) = (body, Vec::new());
    while let Some(length) = rest.first_chunk::<4>() {
        let (document, after) = rest.split_at_checked(usize::try_from(i32::from_le_bytes(*length)).ok()?)?;
        all.push(RawDocument::from_bytes(document).ok()?);
        rest = after;
    }
    rest.is_empty().then_some(all)
}

/// Those places, cut so that each piece fits into a command.
fn chunks<'a>(documents: &[&RawDocument], places: &'a [usize]) -> Vec<&'a [usize]> {
    let (mut all, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, place) in places.iter().enumerate() {
        // A place in an array costs a few bytes too.
        let size = documents.get(*place).map_or(0, |document| document.as_bytes().len() + 16);
        if at > begin && (bytes + size > COMMAND_MAX_BYTES || at - begin >= COMMAND_MAX_DOCUMENTS) {
            all.extend(places.get(begin..at));
            (begin, bytes) = (at, 0);
        }
        bytes += size;
    }
    all.extend(places.get(begin..).filter(|rest| !rest.is_empty()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_is_larger_than_the_server_takes() {
        let large = rawdoc! { "a": "x".repeat(6 << 20) };
        let documents: Vec<&RawDocument> = std::iter::repeat_n(&*large, 5).collect();
        let places: Vec<usize> = (0..5).collect();
        assert_eq!(chunks(&documents, &places), [&[0, 1][..], &[2, 3], &[4]]);
        assert_eq!(chunks(&documents, &[]), Vec::<&[usize]>::new());
    }

    #[test]
    fn what_is_written_late_never_follows_the_deletion_of_its_record() {
        let retry = Verdict::Retry(Fault::new(Trouble::Conflict, "once more"));
        let verdicts = [retry.clone(), Verdict::Done];
        let frozen = |verbs: &[&str]| {
            let part = |(place, verb): (usize, &&str)| Part {
                target: format!("{verb} crm_contacts"),
                body: crate::outbound::Bytes::new(),
                items: vec![place],
            };
            let parts = verbs.iter().enumerate().map(part).collect();
            Frozen { id: "x".to_owned(), parts, items: 2, refused: Vec::new(), notes: Vec::new() }
        };
        assert_eq!(again(&frozen(&[UPDATE, DELETE]), &verdicts), Some(retry));
        assert_eq!(again(&frozen(&[UPDATE, UPDATE]), &verdicts), None);
    }

    #[test]
    fn only_the_id_proves_that_a_document_was_written() {
        use mongodb::bson::doc;
        let of = |pattern: Document| judge(&doc! { "index": 0, "code": 11_000, "keyPattern": pattern }, 0).is_there;
        assert!(of(doc! { "_id": 1 }));
        assert!(!of(doc! { "payload.email": 1 }));
    }
}

//! The one table of column families: what each holds, how its keys begin, how RocksDB should treat it.
//!
//! Always true: a name here is never reused for another kind of row. Not here: the bytes of keys (`keys`), of values
//! (`codec`).

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options as RocksOptions};

/// Files that wait for one compaction of [`Habit::Mass`]; a lookup asks the filter of each. With RocksDB's own 4 each record of
/// a first sync of a million was rewritten six times.
const MASS_FILES: i32 = 8;
/// Memtables of [`Habit::Mass`] that are flushed as one file. In a small one a row finds its place in the processor's cache;
/// the larger the files, the fewer compactions.
const MASS_MEMTABLES: i32 = 6;

/// How rows of a family come and go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Found by their full key, often absent: a bloom filter helps.
    Lookup,
    /// The same, and written by the million in no order: each compaction rewrites all there is, so it waits for more.
    Mass,
    /// Written in order, read by range, dropped by range.
    Log,
    /// Written and soon deleted: compaction is triggered by deletions, so that a queue's past is not scanned.
    Queue,
    /// Merged counters.
    Count,
}

macro_rules! tables {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $habit:ident;)*) => {
        /// A column family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Table { $($(#[doc = $doc])* $name,)* }

        impl Table {
            /// All of them.
            pub const ALL: &'static [Table] = &[$(Table::$name,)*];
            /// The family's name on disk.
            pub fn name(self) -> &'static str { match self { $(Table::$name => $text,)* } }
            fn habit(self) -> Habit { match self { $(Table::$name => Habit::$habit,)* } }
        }
    };
}

tables! {
    /// One row per fact about the store itself: version, canary, clock, sequence, checkpoint.
    Meta = "meta", Lookup;
    /// kind (1), id (12) → workspace, user, key, integration, connection, subscription, topic, farewell, return addresses,
    /// handshake to confirm.
    Objects = "objects", Lookup;
    /// kind (1), workspace (4), id (12) → nothing: lists.
    ByWorkspace = "by_workspace", Lookup;
    /// space (1), workspace (4), hash of the text (16) → id (12): names that must be unique.
    Unique = "unique", Lookup;
    /// parent id (12), kind (1), child id (12) → nothing.
    Links = "links", Lookup;
    /// owner id (12), slot (1), … → encrypted.
    Secrets = "secrets", Lookup;
    /// owner id (12), sequence (8) → bytes (8), received (8), due (8): webhooks that only a script can check and none has judged.
    Unjudged = "unjudged", Queue;
    /// workspace (4), hash of path and key (16) → encrypted answer.
    Idempotency = "idempotency", Lookup;
    /// owner id (12), sequence (8) → encrypted webhook, as it came.
    Inbox = "inbox", Log;
    /// owner id (12), sequence (8) → encrypted: how far that webhook has come.
    InboxProgress = "inbox_progress", Log;
    /// owner id (12), due time (8), sequence (8) → nothing: webhooks not yet understood.
    InboxDue = "inbox_due", Queue;
    /// connection (12), collection (4), record (16) → snapshot row.
    Snapshots = "snapshots", Mass;
    /// connection (12), what (1), … → collection states, sync requests, event switches, custom fields, bulk
    /// first syncs, the wish for new selectors, how its webhook is doing, the fields that an app says it has; of an
    /// integration, how far its journals are read.
    Connections = "connections", Lookup;
    /// connection (12), sequence (8) → one look at an app.
    Pulls = "pulls", Log;
    /// sequence (8) → event.
    Events = "events", Log;
    /// workspace (4), sequence (8) → nothing.
    EventsByWorkspace = "events_by_workspace", Log;
    /// connection (12), record (16), sequence (8) → nothing.
    EventsByRecord = "events_by_record", Log;
    /// lane (4), state (1), … → what is due, dead, or was asked for again: see `keys::Queued`.
    Queue = "queue", Queue;
    /// lane (4), sequence (8) → delivery that was attempted at least once, or ended.
    Deliveries = "deliveries", Log;
    /// lane (4) → what is remembered of its endpoint.
    Lanes = "lanes", Lookup;
    /// lane (4), hour (4), state (1) → how many.
    Counts = "counts", Count;
    /// lane (4), sequence (8) → replay.
    Replays = "replays", Lookup;
    /// lane (4), sequence (8) → nothing: replays that have not ended.
    ReplaysLive = "replays_live", Lookup;
    /// lane (4), sequence (8), what (1) → how many of the deliveries that a replay has made.
    ReplayCounts = "replay_counts", Count;
    /// lane (4), sequence (8) → batch that is frozen and not settled.
    Batches = "batches", Lookup;
    /// lane (4) → how far the present records of a new subscription have been written.
    Backfills = "backfills", Lookup;
    /// workspace (4), id (12) → erasure.
    Erasures = "erasures", Lookup;
    /// workspace (4), id (12) → nothing: erasures that have not ended.
    ErasuresLive = "erasures_live", Lookup;
    /// workspace (4), id (12) → entry of the audit log.
    Audit = "audit", Log;
}

impl Table {
    /// The family's options; all share one block cache.
    pub(super) fn options(self, cache: &Cache, write_buffer_bytes: usize) -> RocksOptions {
        let mut block = BlockBasedOptions::default();
        block.set_block_cache(cache);
        block.set_block_size(16 * 1024);
        block.set_cache_index_and_filter_blocks(true);
        block.set_pin_l0_filter_and_index_blocks_in_cache(true);
        block.set_format_version(5);
        let mut options = RocksOptions::default();
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(write_buffer_bytes);
        options.set_level_compaction_dynamic_level_bytes(true);
        match self.habit() {
            habit @ (Habit::Lookup | Habit::Mass) => {
                block.set_bloom_filter(10.0, false);
                options.set_memtable_whole_key_filtering(true);
                options.set_memtable_prefix_bloom_ratio(0.05);
                if habit == Habit::Mass {
                    options.set_level_zero_file_num_compaction_trigger(MASS_FILES);
                    options.set_write_buffer_size(write_buffer_bytes / 2);
                    options.set_min_write_buffer_number_to_merge(MASS_MEMTABLES);
                    options.set_max_write_buffer_number(MASS_MEMTABLES + 2);
                }
            }
            Habit::Log => options.set_bottommost_compression_type(DBCompressionType::Zstd),
            Habit::Queue => options.add_compact_on_deletion_collector_factory(4096, 2048, 0.5),
            Habit::Count => options.set_merge_operator_associative("add", super::codec::add),
        }
        options.set_block_based_table_factory(&block);
        options
    }
}

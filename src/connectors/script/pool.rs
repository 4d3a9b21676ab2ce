//! The threads that run scripts, and the way to them.
//!
//! Always true: the queue is bounded, and a full one is an error at once; a call that waits for an app keeps no thread;
//! each call is answered by its deadline, also when its thread is stuck inside the engine: a watch thread answers it and
//! starts another thread in its place, a bounded number of times. Nothing of the engine leaves its thread. Not here: the
//! engine (`vm`).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;

use super::exact::Exact;
use super::vm::{Turn, Vm};
use super::{ApiCaller, ApiFailure, ApiReply, ApiRequest, Done, Kind, Options, Script, ScriptError, reply_text};

/// How often the watch thread looks.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long past its deadline a call may be before its thread counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// How many stuck threads are replaced, for each thread of the pool.
const REPLACED_MAX: usize = 4;

/// The script threads; clones share them. They end when the last clone is dropped.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// The watch thread ends when this is dropped.
    _watched: SyncSender<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.ring.notify_waiters();
    }
}

struct Shared {
    options: Options,
    queue: Mutex<VecDeque<Job>>,
    ring: Notify,
    closed: AtomicBool,
    /// Calls that a thread has taken, by the thread's number.
    running: Mutex<HashMap<usize, Vec<Arc<Ticket>>>>,
}

/// The caller's end of a call, wherever it is answered from.
struct Ticket {
    file: String,
    deadline: Instant,
    done: Mutex<Option<oneshot::Sender<Done>>>,
}

struct Job {
    ticket: Arc<Ticket>,
    script: Arc<Script>,
    input: String,
    api: Option<Wire>,
}

/// The script thread's ends of the API calls. Both directions hold at most as many messages as calls are allowed.
struct Wire {
    requests: mpsc::Sender<(u32, ApiRequest)>,
    replies: mpsc::Receiver<(u32, Result<ApiReply, ApiFailure>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these is held leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    fn answer(&self, done: Done) {
        if let Some(sender) = lock(&self.done).take() {
            let _nobody_may_wait_any_more = sender.send(done);
        }
    }

    fn fail(&self, kind: Kind, message: &str) {
        self.answer(Done { result: Err(error(&self.file, kind, message)), console: Vec::new() });
    }
}

fn error(file: &str, kind: Kind, message: &str) -> ScriptError {
    ScriptError { kind, file: file.to_owned(), line: None, message: message.to_owned(), cause: None, api_call: None }
}

impl Pool {
    /// Starts the threads.
    pub fn start(options: &Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            options: options.clone(),
            queue: Mutex::default(),
            ring: Notify::new(),
            closed: AtomicBool::new(false),
            running: Mutex::default(),
        });
        let threads = options.threads.get();
        for number in 0..threads {
            spawn_worker(&shared, number)?;
        }
        let (_watched, ended) = sync_channel(0);
        let watched = Arc::clone(&shared);
        std::thread::Builder::new().name("script-watch".to_owned()).spawn(move || watch(&watched, threads, &ended))?;
        Ok(Self { inner: Arc::new(Inner { shared, _watched }) })
    }

    /// Calls `script` with `input`, the text of a JSON object, which gets an `apiClient` when there is an `api`. At most
    /// `deadline`, and at most the configured one. The API calls run inside this future.
    pub async fn call(
        &self,
        script: &Arc<Script>,
        input: String,
        api: Option<&dyn ApiCaller>,
        deadline: Duration,
    ) -> Done {
        let shared = &self.inner.shared;
        let (done, mut answer) = oneshot::channel();
        let calls_max = shared.options.api_calls_max.get();
        let (requests, mut asked) = mpsc::channel(calls_max);
        let (reply, replies) = mpsc::channel(calls_max);
        let longest = Duration::from_millis(shared.options.deadline_ms.get());
        let ticket = Arc::new(Ticket {
            file: script.file.clone(),
            deadline: Instant::now() + deadline.min(longest),
            done: Mutex::new(Some(done)),
        });
        let wire = api.map(|_| Wire { requests, replies });
        shared.push(Job { ticket, script: Arc::clone(script), input, api: wire });
        let lost =
            |_| Done { result: Err(error(&script.file, Kind::Lost, "its thread was lost")), console: Vec::new() };
        let Some(api) = api else { return answer.await.unwrap_or_else(lost) };
        let mut flying = FuturesUnordered::new();
        loop {
            tokio::select! {
                done = &mut answer => return done.unwrap_or_else(lost),
                Some((id, request)) = asked.recv() => flying.push(async move { (id, api.call(request).await) }),
                Some(settled) = flying.next(), if !flying.is_empty() => {
                    let _the_call_may_be_over = reply.try_send(settled);
                }
            }
        }
    }
}

impl Shared {
    fn push(&self, job: Job) {
        let mut queue = lock(&self.queue);
        if queue.len() >= self.options.queue.get() {
            job.ticket.fail(Kind::Busy, "too many scripts wait for a thread; try again");
            return;
        }
        queue.push_back(job);
        drop(queue);
        // All of them, since the one that would be chosen may be busy.
        self.ring.notify_waiters();
    }

    async fn next(&self) -> Option<Job> {
        loop {
            let ring = self.ring.notified();
            tokio::pin!(ring);
            // Listening starts before looking, so no ring falls between the two.
            ring.as_mut().enable();
            if self.closed.load(Ordering::SeqCst) {
                return None;
            }
            let job = lock(&self.queue).pop_front();
            if job.is_some() {
                return job;
            }
            ring.await;
        }
    }

    /// True when the thread was given up: another has taken its place.
    fn given_up(&self, thread: usize) -> bool {
        !lock(&self.running).contains_key(&thread)
    }
}

/// A call while a thread works on it; dropped unanswered only by a panic.
struct Taken {
    shared: Arc<Shared>,
    thread: usize,
    ticket: Arc<Ticket>,
}

impl Taken {
    fn new(shared: &Arc<Shared>, thread: usize, ticket: &Arc<Ticket>) -> Self {
        lock(&shared.running).entry(thread).or_default().push(Arc::clone(ticket));
        Self { shared: Arc::clone(shared), thread, ticket: Arc::clone(ticket) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.ticket.fail(Kind::Lost, "its thread was lost");
        if let Some(tickets) = lock(&self.shared.running).get_mut(&self.thread) {
            tickets.retain(|other| !Arc::ptr_eq(other, &self.ticket));
        }
    }
}

fn spawn_worker(shared: &Arc<Shared>, number: usize) -> std::io::Result<()> {
    lock(&shared.running).insert(number, Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let shared = Arc::clone(shared);
    // The engine checks its own stack limit; the thread's is well above it.
    let stack = (4 * shared.options.stack_bytes_max.get()).max(2 << 20);
    let builder = std::thread::Builder::new().name(format!("script-{number}")).stack_size(stack);
    builder.spawn(move || LocalSet::new().block_on(&runtime, work(shared, number))).map(|_| ())
}

async fn work(shared: Arc<Shared>, number: usize) {
    let slots = Arc::new(Semaphore::new(shared.options.calls_per_thread.get()));
    while !shared.given_up(number) {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Some(job) = shared.next().await else { return };
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let taken = Taken::new(&shared, number, &job.ticket);
            taken.ticket.answer(run(&shared.options, job).await);
            drop(slot);
        });
    }
}

async fn run(options: &Options, job: Job) -> Done {
    if Instant::now() >= job.ticket.deadline {
        let late = error(&job.script.file, Kind::Deadline, "it was not done in time: it waited for a thread");
        return Done { result: Err(late), console: Vec::new() };
    }
    match Vm::new(options, &job.script, job.ticket.deadline) {
        Err(error) => Done { result: Err(error), console: Vec::new() },
        Ok(mut vm) => {
            let result = drive(&mut vm, job).await;
            Done { result, console: vm.take_console() }
        }
    }
}

async fn drive(vm: &mut Vm, job: Job) -> Result<String, ScriptError> {
    let Job { ticket, script, input, mut api } = job;
    let mut exact = Exact::default();
    exact.read(&input);
    vm.start(&script, &input, api.is_some())?;
    drop(input);
    let mut flying = 0_usize;
    let mut causes = HashMap::new();
    loop {
        let asked = match vm.turn(&script) {
            Turn::Waits(asked) => asked,
            Turn::Done(Ok(text)) => return Ok(exact.restore(text)),
            Turn::Done(Err(mut error)) => {
                error.cause = error.api_call.and_then(|id| causes.remove(&id));
                if error.cause.is_some() && error.kind == Kind::Threw {
                    error.kind = Kind::Api;
                }
                return Err(error);
            }
        };
        flying += asked.len();
        let Some(wire) = api.as_mut().filter(|_| flying > 0) else { return Err(vm.error(Kind::Stalled)) };
        for request in asked {
            wire.requests.try_send(request).map_err(|_| vm.error(Kind::Lost))?;
        }
        let left = ticket.deadline.saturating_duration_since(Instant::now());
        let Ok(reply) = tokio::time::timeout(left, wire.replies.recv()).await else {
            return Err(vm.error(Kind::Deadline));
        };
        // Nobody waits for the result any more when the other end is gone.
        let (id, outcome) = reply.ok_or_else(|| vm.error(Kind::Lost))?;
        flying -= 1;
        let text = reply_text(&outcome);
        exact.read(outcome.as_ref().map_or("", |reply| reply.body.as_str()));
        vm.answer(&script, id, outcome.is_ok(), &text)?;
        if let Err(failure) = outcome {
            causes.insert(id, failure.error);
        }
    }
}

/// Answers the calls of stuck threads, and starts others in their place.
fn watch(shared: &Arc<Shared>, threads: usize, ended: &Receiver<()>) {
    let mut next = threads;
    while ended.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        let late = |ticket: &Arc<Ticket>| now.saturating_duration_since(ticket.deadline) > STUCK_AFTER;
        let waiting: Vec<Job> = {
            let mut queue = lock(&shared.queue);
            let (late, rest) = queue.drain(..).partition(|job: &Job| late(&job.ticket));
            *queue = rest;
            Vec::from_iter::<VecDeque<Job>>(late)
        };
        for job in waiting {
            job.ticket.fail(Kind::Deadline, "it was not done in time: it waited for a thread");
        }
        let stuck: Vec<usize> = {
            let running = lock(&shared.running);
            running.iter().filter(|(_, tickets)| tickets.iter().any(late)).map(|(thread, _)| *thread).collect()
        };
        for thread in stuck {
            for ticket in lock(&shared.running).remove(&thread).unwrap_or_default() {
                tracing::error!(script = ticket.file, "a script thread is stuck; its calls are given up");
                ticket.fail(Kind::Lost, "its thread was lost");
            }
            let may = next < threads * (1 + REPLACED_MAX);
            if may && let Err(error) = spawn_worker(shared, next) {
                tracing::error!(%error, "no thread can be started in place of a stuck one");
            }
            next += 1;
        }
    }
}

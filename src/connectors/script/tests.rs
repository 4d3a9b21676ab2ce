//! What scripts can and cannot do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

fn number<T: TryFrom<u64>>(n: u64) -> T
where
    T::Error: fmt::Debug,
{
    T::try_from(n).unwrap()
}

fn options() -> Options {
    Options {
        threads: NonZeroUsize::new(1).unwrap(),
        calls_per_thread: NonZeroUsize::new(4).unwrap(),
        queue: NonZeroUsize::new(8).unwrap(),
        memory_bytes_max: NonZeroUsize::new(16 << 20).unwrap(),
        stack_bytes_max: NonZeroUsize::new(256 << 10).unwrap(),
        cpu_ms_max: NonZeroU64::new(250).unwrap(),
        deadline_ms: NonZeroU64::new(5_000).unwrap(),
        api_calls_max: NonZeroUsize::new(3).unwrap(),
        result_bytes_max: NonZeroUsize::new(number(1 << 20)).unwrap(),
        console_lines_max: NonZeroUsize::new(3).unwrap(),
    }
}

fn script(source: &str) -> Arc<Script> {
    Arc::new(Script { file: "app/handle.js".to_owned(), source: source.to_owned() })
}

async fn call(source: &str, input: &str) -> Done {
    let pool = Pool::start(&options()).unwrap();
    pool.call(&script(source), input.to_owned(), None, Duration::from_secs(5)).await
}

async fn result(source: &str, input: &str) -> String {
    call(source, input).await.result.unwrap()
}

async fn failure(source: &str) -> ScriptError {
    call(source, "{}").await.result.unwrap_err()
}

/// An app that answers each path with JSON, and fails on `missing`.
#[derive(Default)]
struct App {
    calls: AtomicUsize,
}

impl ApiCaller for App {
    fn call(&self, request: ApiRequest) -> ApiOutcome<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if request.path == "hangs" {
                std::future::pending::<()>().await;
            }
            if request.path == "missing" {
                let error = CallError::Refused { status: 404, message: "no such thing".to_owned() };
                let body = r#"{"why":"gone"}"#.to_owned();
                return Err(ApiFailure {
                    status: Some(404),
                    content_type: Some("application/json".to_owned()),
                    body,
                    error,
                });
            }
            let body = serde_json::json!({
                "id": 42, "method": request.method, "path": request.path, "query": request.query,
                "body": request.body, "type": request.content_type,
            });
            let headers = vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())];
            Ok(ApiReply { status: 200, headers, body: body.to_string() })
        })
    }
}

async fn call_app(source: &str) -> Done {
    let pool = Pool::start(&options()).unwrap();
    pool.call(&script(source), "{}".to_owned(), Some(&App::default()), Duration::from_secs(5)).await
}

#[tokio::test]
async fn the_handle_function_of_the_brief_runs_unchanged() {
    let source = r"
export default async function handle({ data }) {
  return {
    events: [
      {
        payload: data,
        selector: `user_id:${data.from_user_id}`,
      },
    ],
    response: {
        status: 201,
        data: 'Webhook received'
    }
  }
}
";
    let answer = result(source, r#"{"data":{"from_user_id":7,"text":"hi"}}"#).await;
    assert_eq!(
        answer,
        r#"{"events":[{"payload":{"from_user_id":7,"text":"hi"},"selector":"user_id:7"}],"response":{"status":201,"data":"Webhook received"}}"#
    );
}

#[tokio::test]
async fn the_selector_function_of_the_brief_runs_unchanged() {
    let source = r"
export default async function getEventSelector({ apiClient }) {
  const response = await apiClient.get('users/me')
  return {
    globalWebhookKey: 'global-webhok-key',
    globalWebhookEventSelector: `user_id:${response?.id}`,
  }
}
";
    let answer = call_app(source).await.result.unwrap();
    assert_eq!(answer, r#"{"globalWebhookKey":"global-webhok-key","globalWebhookEventSelector":"user_id:42"}"#);
}

#[tokio::test]
async fn an_endless_loop_ends_with_its_cpu_time() {
    let error = failure("export default () => {\n  for (;;) {}\n}").await;
    assert_eq!(error.kind, Kind::CpuTime, "{error}");
}

#[tokio::test]
async fn a_loop_that_catches_everything_ends_too() {
    let error = failure("export default () => { for (;;) { try { for (;;) {} } catch {} finally {} } }").await;
    assert_eq!(error.kind, Kind::CpuTime, "{error}");
}

#[tokio::test]
async fn endless_promise_jobs_end_with_their_cpu_time() {
    for source in [
        "export default async () => { for (;;) await null }",
        "const f = () => { Promise.resolve().then(f) }; export default f",
        "const f = () => { Promise.resolve().then(f).then(f) }; export default async () => { f(); await new Promise(() => {}) }",
    ] {
        let started = Instant::now();
        let error = failure(source).await;
        assert!(matches!(error.kind, Kind::CpuTime | Kind::Memory | Kind::Threw), "{source}: {error}");
        assert!(started.elapsed() < Duration::from_secs(4), "{source}");
    }
}

#[tokio::test]
async fn an_endless_loop_at_load_ends_too() {
    assert_eq!(failure("for (;;) {}\nexport default () => 1").await.kind, Kind::CpuTime);
    assert_eq!(check(&options(), &script("for (;;) {}")).unwrap_err().kind, Kind::CpuTime);
}

#[tokio::test]
async fn a_regular_expression_without_end_ends_with_its_cpu_time() {
    let error = failure("export default () => /^(a+)+$/.test('a'.repeat(40) + 'b')").await;
    assert_eq!(error.kind, Kind::CpuTime, "{error}");
}

#[tokio::test]
async fn an_allocation_bomb_ends_with_its_memory() {
    for source in [
        "export default () => { const all = []; for (;;) all.push('x'.repeat(100000) + all.length) }",
        "export default () => 'x'.repeat(1 << 30).length",
        "export default () => new Uint8Array(1 << 28).length",
        "export default () => { let a = [1]; for (;;) a = a.concat(a) }",
    ] {
        let error = failure(source).await;
        assert!(matches!(error.kind, Kind::Memory | Kind::Threw), "{source}: {error}");
    }
    let error = failure("export default () => { const all = []; for (;;) all.push({}) }").await;
    assert_eq!(error.kind, Kind::Memory, "{error}");
}

#[tokio::test]
async fn running_out_of_memory_at_any_point_is_an_error_and_no_more() {
    let source = "export default async function f(x) { const a = []; for (let i = 0; i < 300; i++) { a.push({ i, t: `${i}` }); \
                  if (i % 50 === 0) await null } console.log(a.length, new URL('https://a.b/c?d=e').searchParams.get('d')); \
                  return JSON.parse(JSON.stringify(a)) }";
    let mut ended = 0;
    for kib in (1..1200).step_by(2) {
        let options = Options { memory_bytes_max: NonZeroUsize::new(kib << 10).unwrap(), ..options() };
        let deadline = Instant::now() + Duration::from_secs(5);
        let script = script(source);
        let Ok(mut vm) = vm::Vm::new(&options, &script, deadline) else { continue };
        if vm.start(&script, r#"{"x":1}"#, true).is_err() {
            continue;
        }
        if matches!(vm.turn(&script), vm::Turn::Done(Ok(_))) {
            ended += 1;
        }
    }
    assert!(ended > 10, "{ended}");
}

#[tokio::test]
async fn deep_recursion_ends_with_its_stack() {
    let error = failure("const f = (n) => 1 + f(n + 1);\nexport default () => f(0)").await;
    assert_eq!(error.kind, Kind::Stack, "{error}");
    let error = failure("export default () => JSON.parse('['.repeat(200000))").await;
    assert!(matches!(error.kind, Kind::Stack | Kind::Threw), "{error}");
}

#[tokio::test]
async fn what_is_thrown_says_file_line_and_message() {
    let error = failure("export default function any() {\n\n  null.boom\n}").await;
    assert_eq!(error.kind, Kind::Threw);
    assert_eq!(error.to_string(), "app/handle.js:3: TypeError: cannot read property 'boom' of null");
    let error = failure("export default async () => {\n  await null\n  throw new Error('sorry')\n}").await;
    assert_eq!(error.to_string(), "app/handle.js:3: Error: sorry");
    assert_eq!(failure("export default () => { throw 'text' }").await.to_string(), "app/handle.js: text");
    assert_eq!(failure("export default () => { throw null }").await.kind, Kind::Memory);
}

#[tokio::test]
async fn a_script_that_is_no_module_with_a_function_is_an_error_at_load() {
    let error = check(&options(), &script("export default function (\n")).unwrap_err();
    assert_eq!((error.kind, error.line), (Kind::Load, Some(2)), "{error}");
    let error = check(&options(), &script("export const handle = () => 1")).unwrap_err();
    assert_eq!(error.kind, Kind::Load);
    assert!(error.message.contains("default export"), "{error}");
    assert_eq!(check(&options(), &script("export default 7")).unwrap_err().kind, Kind::Load);
    let error = check(&options(), &script("\nimport fs from 'fs'; export default () => 1")).unwrap_err();
    assert_eq!(error.kind, Kind::Load, "{error}");
    check(&options(), &script("export default async function handle({ data }) { return data }")).unwrap();
}

#[tokio::test]
async fn a_promise_that_nothing_settles_is_told_at_once() {
    let error = failure("export default () => new Promise(() => {})").await;
    assert_eq!(error.kind, Kind::Stalled, "{error}");
}

#[tokio::test]
async fn an_app_that_never_answers_ends_with_the_deadline() {
    let pool = Pool::start(&options()).unwrap();
    let hangs = script("export default async ({ apiClient }) => { await apiClient.get('hangs') }");
    let done = pool.call(&hangs, "{}".to_owned(), Some(&App::default()), Duration::from_millis(200)).await;
    assert_eq!(done.result.unwrap_err().kind, Kind::Deadline);
}

#[tokio::test]
async fn too_many_api_calls_end_the_call_even_when_caught() {
    let source =
        "export default async ({ apiClient }) => {\n  for (;;) { try { await apiClient.get('x') } catch {} }\n}";
    let pool = Pool::start(&options()).unwrap();
    let app = App::default();
    let done = pool.call(&script(source), "{}".to_owned(), Some(&app), Duration::from_secs(5)).await;
    assert_eq!(done.result.unwrap_err().kind, Kind::ApiCalls);
    assert_eq!(app.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn api_calls_carry_query_body_and_type() {
    let source = "export default async ({ apiClient }) => Promise.all([\n\
        apiClient.get('/a', { q: 'x y', many: [1, 2], none: null }),\n\
        apiClient.post('b', { n: 1 }, { query: { z: 1 } }),\n\
        apiClient.delete('c', new URLSearchParams({ k: 'v w' }), { returnFullResponse: true })])";
    let answer: serde_json::Value = serde_json::from_str(&call_app(source).await.result.unwrap()).unwrap();
    assert_eq!(answer[0]["query"], serde_json::json!([["q", "x y"], ["many", "1"], ["many", "2"]]));
    assert_eq!(answer[1]["body"], r#"{"n":1}"#);
    assert_eq!(answer[1]["query"], serde_json::json!([["z", "1"]]));
    assert_eq!(answer[2]["status"], 200);
    assert_eq!(answer[2]["data"]["body"], "k=v+w");
    assert_eq!(answer[2]["data"]["type"], "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn a_refused_api_call_throws_with_its_status() {
    let caught = "export default async ({ apiClient }) => {\n\
        try { await apiClient.get('missing') } catch (e) { return [e.name, e.status, e.message, e.data] } }";
    let answer = call_app(caught).await.result.unwrap();
    assert_eq!(answer, r#"["ApiError",404,"the app refused with status 404: no such thing",{"why":"gone"}]"#);

    let error = call_app("export default async ({ apiClient }) => {\n\n  await apiClient.get('missing')\n}").await;
    let error = error.result.unwrap_err();
    assert_eq!((error.kind, error.line), (Kind::Api, Some(3)), "{error}");
    assert_eq!(CallError::from(error), CallError::Refused { status: 404, message: "no such thing".to_owned() });
}

#[tokio::test]
async fn absolute_urls_are_refused() {
    for path in
        ["https://evil.example/x", "//evil.example/x", "\\\\\\\\evil.example", " https:evil", "/\\\\evil", "data:x"]
    {
        let source = format!("export default ({{ apiClient }}) => apiClient.get('{path}')");
        let error = call_app(&source).await.result.unwrap_err();
        assert!(error.message.contains("relative"), "{path}: {error}");
    }
}

#[tokio::test]
async fn without_an_app_there_is_no_api_client() {
    assert_eq!(result("export default ({ apiClient }) => typeof apiClient", "{}").await, r#""undefined""#);
}

#[tokio::test]
async fn nothing_of_the_machine_is_in_reach() {
    let source = "export default () => ['require', 'process', 'fetch', 'std', 'os', 'Deno', 'setTimeout', 'XMLHttpRequest', \
                  'WebSocket', 'print', 'load'].filter((name) => typeof globalThis[name] !== 'undefined')";
    assert_eq!(result(source, "{}").await, "[]");
    let error = failure("export default async () => { await import('fs') }").await;
    assert_eq!(error.kind, Kind::Threw, "{error}");
}

#[tokio::test]
async fn one_call_sees_nothing_of_another() {
    let pool = Pool::start(&options()).unwrap();
    let leaky = script("export default () => { globalThis.n = (globalThis.n ?? 0) + 1; Symbol.for('x'); return n }");
    for _ in 0..3 {
        let done = pool.call(&leaky, "{}".to_owned(), None, Duration::from_secs(5)).await;
        assert_eq!(done.result.unwrap(), "1");
    }
}

#[tokio::test]
async fn after_a_limit_the_next_call_is_well() {
    let pool = Pool::start(&options()).unwrap();
    let wait = Duration::from_secs(5);
    let bad = script("export default () => { for (;;) {} }");
    assert!(pool.call(&bad, "{}".to_owned(), None, wait).await.result.is_err());
    let good = script("export default () => 1");
    assert_eq!(pool.call(&good, "{}".to_owned(), None, wait).await.result.unwrap(), "1");
}

#[tokio::test]
async fn a_full_queue_is_an_error_to_try_again() {
    let mut options = options();
    options.queue = NonZeroUsize::new(1).unwrap();
    let pool = Pool::start(&options).unwrap();
    let slow = script("export default () => { const end = Date.now() + 100; while (Date.now() < end); return 1 }");
    let calls = (0..12).map(|_| pool.call(&slow, "{}".to_owned(), None, Duration::from_secs(5)));
    let done = futures_util::future::join_all(calls).await;
    let busy = done.iter().filter(|done| matches!(&done.result, Err(e) if e.kind == Kind::Busy)).count();
    assert!(busy > 0 && busy < 12, "{busy}");
    let error = done.into_iter().find_map(|done| done.result.err()).unwrap();
    assert!(error.kind.passing() && matches!(CallError::from(error), CallError::Unavailable { .. }));
}

#[tokio::test]
async fn the_console_is_kept_up_to_its_limit() {
    let source = "export default () => { console.log('a', 1, { b: [2] }); console.error(new Error('c').message); \
                  console.log('x'.repeat(5000)); console.log('lost'); console.log('lost') }";
    let done = call(source, "{}").await;
    assert_eq!(done.result.unwrap(), "null");
    assert_eq!(done.console[0], r#"a 1 {"b":[2]}"#);
    assert_eq!(done.console[1], "c");
    assert_eq!(done.console[2].len(), 1024);
    assert_eq!(done.console[3], "… 2 more lines");
    let failed = call("export default () => { console.log('before'); throw new Error('x') }", "{}").await;
    assert_eq!(failed.console, ["before"]);
}

#[tokio::test]
async fn a_result_that_is_too_long_is_refused() {
    let error = failure("export default () => 'x'.repeat(2 << 20)").await;
    assert_eq!(error.kind, Kind::ResultSize, "{error}");
    let error = failure("export default () => { const a = {}; a.a = a; return a }").await;
    assert_eq!(error.kind, Kind::Threw, "{error}");
    assert_eq!(failure("export default () => 1n").await.kind, Kind::Threw);
}

#[tokio::test]
async fn numbers_pass_through_exactly() {
    let source = "export default ({ data }) => ({ payload: data, id: data.id })";
    let answer = result(source, r#"{"data":{"id":9007199254740993123,"price":10.00}}"#).await;
    assert_eq!(answer, r#"{"payload":{"id":9007199254740993123,"price":10.00},"id":9007199254740993123}"#);
}

#[tokio::test]
async fn hashes_and_signatures_are_right() {
    // RFC 4231, test case 2; FIPS 180-4 "abc".
    let source = "export default () => [crypto.hmac('sha256', 'Jefe', 'what do ya want for nothing?'), \
        crypto.hmac('SHA-256', 'Jefe', 'what do ya want for nothing?', 'base64'), crypto.hash('sha256', 'abc'), \
        crypto.createHmac('sha256', 'Jefe').update('what do ya want ').update('for nothing?').digest('hex'), \
        crypto.hash('sha1', new TextEncoder().encode('abc')), crypto.hash('sha256', 'abc', 'bytes').length, \
        crypto.timingSafeEqual('a', 'a'), crypto.timingSafeEqual('a', 'b'), crypto.timingSafeEqual('a', 'aa')]";
    let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let expected = serde_json::json!([
        hex,
        "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        hex,
        "a9993e364706816aba3e25717850c26c9cd0d89d",
        32,
        true,
        false,
        false
    ]);
    assert_eq!(result(source, "{}").await, expected.to_string());
    let error = failure("export default () => crypto.hash('md5', '')").await;
    assert!(error.message.contains("unknown algorithm"), "{error}");
}

#[tokio::test]
async fn base64_text_and_urls_work_as_in_browsers() {
    let source = r"export default () => {
      const url = new URL('../b?x=1&y=a%20b#top', 'https://user:pw@shop.example:8443/admin/a');
      url.searchParams.append('z', 'é');
      url.hash = '';
      return [btoa('hé'), atob('aOk='), atob(' aOk '), new TextDecoder().decode(new TextEncoder().encode('€')),
        String(url), url.host, url.origin, url.searchParams.get('y'), [...new URLSearchParams('?a=1&a=2')].length,
        URL.canParse('nope'), JSON.stringify({ url: new URL('http://a') })];
    }";
    let expected = serde_json::json!([
        "aOk=",
        "hé",
        "hé",
        "€",
        "https://user:pw@shop.example:8443/b?x=1&y=a+b&z=%C3%A9",
        "shop.example:8443",
        "https://shop.example:8443",
        "a b",
        2,
        false,
        r#"{"url":"http://a/"}"#
    ]);
    assert_eq!(result(source, "{}").await, expected.to_string());
    assert!(failure("export default () => new URL('nope')").await.message.contains("invalid URL"));
}

#[tokio::test]
async fn many_calls_wait_for_apps_on_one_thread() {
    let pool = Pool::start(&options()).unwrap();
    let app = App::default();
    let asks = script("export default async ({ apiClient }) => (await apiClient.get('a')).id");
    let calls = (0..8).map(|_| pool.call(&asks, "{}".to_owned(), Some(&app), Duration::from_secs(5)));
    for done in futures_util::future::join_all(calls).await {
        assert_eq!(done.result.unwrap(), "42");
    }
}

#[tokio::test]
async fn xml_is_read_as_plain_objects_and_a_bad_one_is_an_error_of_the_script() {
    let source = "export default ({ text }) => xml.parse(text)";
    assert_eq!(result(source, r#"{"text":"<a b='1'><c>x</c></a>"}"#).await, r#"{"a":{"@b":"1","c":"x"}}"#);
    let error = call(source, r#"{"text":"<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>"}"#).await.result.unwrap_err();
    assert!(error.kind == Kind::Threw && error.message.contains("the XML cannot be read"), "{error}");
}

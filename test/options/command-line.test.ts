import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UsageError } from '../../src/core/errors'
import { parseCommandLine, targetsOf, type CommandLine } from '../../src/options/command-line'
import { groupArgv } from '../../src/options/group'
import { fakes } from './fakes'

const exists = (): boolean => false
function parse(argv: readonly string[], env: Record<string, string> = {}): CommandLine {
  return parseCommandLine(argv, env, fakes, { exists })
}
function faults(
  argv: readonly string[],
  env: Record<string, string> = {},
  known: (path: string) => boolean = exists,
): readonly string[] {
  try {
    parseCommandLine(argv, env, fakes, { exists: known })
  } catch (error) {
    if (error instanceof UsageError) return error.faults
    throw error
  }
  throw new Error('no fault')
}
function sinkFaults(...words: string[]): readonly string[] {
  return faults(['--from', '-', '--to', 's3://lake/x', ...words])
}
async function sinkOptions(...words: string[]): Promise<Record<string, unknown>> {
  const { to } = await targetsOf(parse(['--from', '-', '--to', 's3://lake/x', ...words]))
  return to[0]?.options as Record<string, unknown>
}
async function feedOptions(...words: string[]): Promise<Record<string, unknown>> {
  const { from } = await targetsOf(parse(['--from', 'ws://h/p', ...words, '--to', '-']))
  return from[0]?.options as Record<string, unknown>
}

describe('grouping', () => {
  test('words belong to their endpoint up to the next flag', () => {
    const grouped = groupArgv(
      [
        'check',
        '--from',
        'a',
        'x=1',
        'follow',
        '--name',
        'n',
        '--to=b',
        'y=2',
        '-q',
        '--to',
        '-',
        'z',
        '--append',
        'a=b',
        '--append',
        'c:=1',
      ],
      {},
    )
    expect(grouped.from).toEqual([{ uri: 'a', words: ['x=1', 'follow'] }])
    expect(grouped.to).toEqual([
      { uri: 'b', words: ['y=2'] },
      { uri: '-', words: ['z'] },
    ])
    expect(grouped.flags).toEqual(['check', '--name', 'n', '-q', '--append', 'a=b', '--append', 'c:=1'])
    expect(grouped.unattached).toEqual(['check'])
  })

  test('repeated flags never run together', () => {
    expect(groupArgv(['--to', 'a', 'x', '--to', 'b', 'y'], {}).to).toEqual([
      { uri: 'a', words: ['x'] },
      { uri: 'b', words: ['y'] },
    ])
  })

  test('a lone dash is an endpoint everywhere', () => {
    expect(groupArgv(['--from', '-', '--to', '-'], {})).toMatchObject({
      from: [{ uri: '-', words: [] }],
      to: [{ uri: '-', words: [] }],
      flags: [],
    })
  })

  test('the dead letter is an endpoint with words of its own', () => {
    expect(groupArgv(['--dead-letter', 'file:x', 'framing=envelope', '--quiet'], {})).toMatchObject({
      deadLetter: { uri: 'file:x', words: ['framing=envelope'] },
      flags: ['--quiet'],
    })
  })

  test("the value of a flag is never an endpoint's word, nor the other way round", () => {
    const line = parse([
      '--from',
      '-',
      '--until',
      '-1h',
      'idle=30s',
      'count=5',
      '--to',
      'discard:',
      '--receipt',
      '-',
      '--append',
      'x=--to',
    ])
    expect(line.until).toMatchObject({ idle: 30_000, count: 5, point: { kind: 'time' } })
    expect(line.flags.receipt).toBe('-')
    expect(line.appends).toEqual([{ name: 'x', kind: 'text', value: '--to' }])
  })

  test('MANIFOLD_ARGS stands before argv, and endpoints of argv replace those in it', () => {
    const env = {
      MANIFOLD_ARGS: `--from 'file:/a b' follow --to s3://lake/x key="a b" --name one --append a=1 --grace 5s`,
    }
    const plain = parse([], env)
    expect(plain.from[0]?.uri.path).toBe('/a b')
    expect(plain.given).toEqual(new Set(['name', 'append', 'grace']))
    const line = parse(['--to', '-', '--name', 'two', '--append', 'b=2'], env)
    expect(line.from.map(({ label }) => label)).toEqual(['file:/a b'])
    expect(line.to.map(({ label }) => label)).toEqual(['stdout'])
    expect(line.flags).toMatchObject({ name: 'two', grace: 5000 })
    expect(line.appends.map(({ name }) => name)).toEqual(['a', 'b'])
    expect(parse(['--no-spool'], { MANIFOLD_ARGS: '--from - --to - --spool /x' }).flags).toMatchObject({
      noSpool: true,
      spool: undefined,
    })
  })

  test('a quote left open in MANIFOLD_ARGS is said', () => {
    expect(faults(['--from', '-', '--to', '-'], { MANIFOLD_ARGS: "--name 'x" })).toEqual([
      'MANIFOLD_ARGS cannot be split into words: a single quote is not closed',
    ])
  })
})

describe('names and values', () => {
  test('the spellings of the original are the same option', async () => {
    for (const name of ['commit-file-size', 'CommitFileSize', 'commitFileSize', 'commit_file_size', 'COMMITFILESIZE'])
      expect(await sinkOptions(`${name}=1MB`)).toMatchObject({ commitFileSize: 1024 * 1024 })
  })

  test('a bare number has the unit of the original', async () => {
    expect(await sinkOptions('CommitFileSize=64', 'CommitDuration=2', 'UploadEvery=3')).toMatchObject({
      commitFileSize: 65_536,
      commitDuration: 120_000,
      uploadEvery: 3000,
    })
    expect(await feedOptions('reconnect_every=3600000000000')).toMatchObject({ reconnectEvery: 3_600_000 })
  })

  test('nanoseconds under one second are refused with what was meant', () => {
    expect(faults(['--from', 'ws://h/p?reconnect_every=3600', '--to', '-'])).toEqual([
      expect.stringContaining('write 3600s if seconds are meant'),
    ])
  })

  test('a bare number where there was no unit is refused', () => {
    expect(faults(['--from', 'ws://h/p', 'silence=30', '--to', '-'])).toEqual([
      "option 'silence' of ws: '30' is not valid: a duration needs a unit: 30s, 30m or 30ms",
    ])
  })

  test('sizes and durations are read as people and Go write them', async () => {
    expect(await sinkOptions('commit-file-size=1.5kib', 'commit-duration=12h0m0s', 'upload-every=1m30s')).toMatchObject(
      { commitFileSize: 1536, commitDuration: 43_200_000, uploadEvery: 90_000 },
    )
  })

  test('0 switches a trigger off', async () => {
    expect(await sinkOptions('commit-file-size=0', 'commit-duration=0')).toMatchObject({
      commitFileSize: 0,
      commitDuration: 0,
    })
  })

  test('defaults stand where nothing is given', async () => {
    expect(await sinkOptions()).toMatchObject({
      commitFileSize: 67_108_864,
      compression: 'none',
      tag: [],
      region: undefined,
      pathStyle: false,
    })
  })

  test('a bare name is true, and flags may be switched off', async () => {
    expect(await sinkOptions('path-style')).toMatchObject({ pathStyle: true })
    expect(await sinkOptions('path_style=no')).toMatchObject({ pathStyle: false })
  })

  test('what follows the dot of a map option is as typed', async () => {
    expect(await feedOptions('Header.X_A-b=1', 'header.x_a-b=a=b=c', 'HEADER.Cookie.Name=z')).toMatchObject({
      header: [
        ['X_A-b', '1'],
        ['x_a-b', 'a=b=c'],
        ['Cookie.Name', 'z'],
      ],
    })
  })

  test('a list is appended to, by query and words', async () => {
    expect(await feedOptions('send={"a":1}', 'send=b=c')).toMatchObject({ send: ['{"a":1}', 'b=c'] })
  })

  test('words are never decoded, values of the query once', async () => {
    expect(await sinkOptions('key=a%20b&c?d')).toMatchObject({ key: 'a%20b&c?d' })
    const { to } = await targetsOf(parse(['--from', '-', '--to', 's3://lake/x?key=a%2520b%3Dc']))
    expect(to[0]?.options).toMatchObject({ key: 'a%20b=c' })
  })

  test('an alias is the option', async () => {
    expect(await sinkOptions('secret_key=abcdefgh')).toMatchObject({ secretAccessKey: 'abcdefgh' })
    const { to } = await targetsOf(parse(['--from', '-', '--to', 's3:', 'Bucket=lake']))
    expect(to[0]?.options).toMatchObject({ bucketName: 'lake' })
  })

  test('braces that are no placeholders pass to the endpoint', async () => {
    expect(await sinkOptions('key={yyyy}/{json:a.b}-{id}')).toMatchObject({ key: '{yyyy}/{json:a.b}-{id}' })
  })
})

describe('faults', () => {
  test('all of a line are found at once, each with the nearest name', () => {
    expect(
      faults([
        '--from',
        'kafak://h/t',
        '--to',
        's3://lake/x',
        'comit-file-size=1',
        'compression=gzp',
        'commit-duration=abc',
        '--nmae',
        'x',
        '--grace',
        'soon',
        '--log-format',
        'jsn',
      ]),
    ).toEqual([
      "unknown scheme 'kafak'; did you mean 'kafka'?",
      "unknown option 'comit-file-size' for s3; did you mean 'commit-file-size'?",
      "option 'commit-duration' of s3: 'abc' is not valid: a duration is expected, such as 500ms, 30s, 5m or 12h",
      "option 'compression' of s3: 'gzp' is not valid: one of none, gzip, zstd is expected; did you mean 'gzip'?",
      "unknown flag '--nmae'; did you mean '--name'?",
      "--grace 'soon' is not valid: a duration is expected, such as 500ms, 30s, 5m or 12h",
      "--log-format 'jsn' is not valid: one of auto, text, json is expected; did you mean 'json'?",
    ])
  })

  test('a faulty URI does not hide the faults of its words', () => {
    expect(faults(['--from', 'kafka:t', 'gruop=x', '--to', '-'])).toEqual([
      expect.stringContaining('kafka://HOST:PORT/TOPIC'),
      "unknown option 'gruop' for kafka; did you mean 'group'?",
    ])
  })

  test('an option that resembles none points to the help', () => {
    expect(sinkFaults('bandwidth=3')).toEqual([
      "unknown option 'bandwidth' for s3; 'manifold help s3' lists what there is",
    ])
  })

  test('given twice, by query and word or by two spellings', () => {
    expect(faults(['--from', '-', '--to', 's3://lake/x?commit-file-size=1', 'CommitFileSize=1'])).toEqual([
      "option 'commit-file-size' of s3 is given twice: in the query and as a word",
    ])
    expect(sinkFaults('region=a', 'Region=a', 'REGION=a')).toEqual(["option 'region' of s3 is given twice"])
  })

  test('an option of the other role says whose it is', () => {
    expect(faults(['--from', '-', '--to', 'file:x', 'follow'])).toEqual([
      "option 'follow' of file is for sources (--from) only",
    ])
    expect(faults(['--from', 'ws://h/', 'barrier', '--to', '-'])).toEqual([
      "option 'barrier' of ws is for sinks (--to) only",
    ])
  })

  test('an endpoint that cannot be a source says so', () => {
    expect(faults(['--from', 's3://lake/x', '--to', 'generate:'])).toEqual([
      's3 can only be a sink (--to)',
      'generate can only be a source (--from)',
    ])
  })

  test('what is required is asked for, in its role alone', () => {
    expect(faults(['--from', 'amqp://mq/', '--to', 'amqp://mq/'])).toEqual([
      "amqp as a source needs option 'queue': queue=VALUE",
      "amqp as a sink needs option 'exchange': exchange=VALUE",
    ])
  })

  test('files among the options are a glob that the shell expanded', () => {
    const directory = mkdtempSync(join(tmpdir(), 'manifold-options-'))
    try {
      for (const name of ['b.log', 'c=d.log', 'follow']) writeFileSync(join(directory, name), '')
      const words = ['a.log', 'b.log', 'c=d.log'].map((name) => join(directory, name))
      const text = (() => {
        try {
          parseCommandLine(['--from', ...words, 'follow', '--to', '-'], {}, fakes)
        } catch (error) {
          return (error as UsageError).message
        }
        return ''
      })()
      expect(text).toMatch(/b\.log' and 1 other word are files, not an option of file: quote the glob/)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('a name that is an option is one, though a file is called so', () => {
    expect(
      parseCommandLine(['--from', 'x', 'follow', '--to', '-'], {}, fakes, { exists: () => true }).from[0]?.given,
    ).toEqual(new Set(['follow']))
  })

  test('a value in a word of its own is not repeated', () => {
    const [fault] = sinkFaults('secret-access-key', 'CANARY-CANARY')
    expect(fault).toBe("option 'secret-access-key' of s3 and its value are one word: secret-access-key=VALUE")
  })

  test('a map option needs a name after its dot', () => {
    expect(faults(['--from', 'ws://h/', 'header=x', 'header.=y', '--to', '-'])).toEqual(
      Array(1).fill("option 'header' of ws needs a name after a dot: header.NAME=VALUE"),
    )
  })

  test('what is missing is named once', () => {
    expect(faults([])).toEqual(['--from is missing: where records come from', '--to is missing: where records go'])
    expect(faults(['--from', '--to', '-'])).toEqual(['--from needs a URI'])
    expect(faults(['--from', '-', '--to='])).toEqual(['--to needs a URI'])
  })

  test('a word that belongs to nothing is a fault, also after a flag without value', () => {
    expect(faults(['-', '--from', '-', '--no-spool', 'follow', '--to', '-'])).toEqual([
      expect.stringContaining("'-' belongs to nothing"),
      expect.stringContaining("'follow' belongs to nothing"),
    ])
  })

  test('two endpoints of a side may not be equal, however they are written', () => {
    expect(faults(['--from', '-', '--to', 's3://lake/x', '--to', 's3://lake/x/', 'commit-duration=1m'])).toEqual([
      '--to s3://lake/x/ is given twice',
    ])
    expect(faults(['--from', 'a.log', '--from', './a.log', '--to', '-'])).toEqual([
      '--from file:./a.log is given twice',
    ])
    expect(
      parse(['--from', '-', '--to', 's3://lake/x', 'region=a', '--to', 's3://lake/x', 'region=b']).to,
    ).toHaveLength(2)
    expect(parse(['--from', 'x', '--to', 'x']).to).toHaveLength(1)
  })

  test('an endpoint checks its options against each other', () => {
    expect(faults(['--from', '-', '--to', 's3:', 'region=nowhere'])).toEqual([
      's3: no bucket is named',
      's3: there is no such region',
    ])
  })

  test('a dash among options is explained', () => {
    expect(sinkFaults('-')).toEqual([expect.stringContaining('right after --from or --to')])
  })
})

describe('flags', () => {
  test('all have their types and defaults', () => {
    const { flags } = parse(['--from', '-', '--to', '-'])
    expect(flags).toMatchObject({
      grace: 30_000,
      linger: 5,
      memory: 67_108_864,
      logFormat: 'auto',
      logLevel: 'info',
      progress: 'auto',
      quiet: false,
      noSpool: false,
      append: [],
      giveUpAfter: undefined,
    })
  })

  test('values are parsed as options are', () => {
    const { flags, until } = parse([
      '--from',
      '-',
      '--to',
      '-',
      '--give-up-after',
      'First',
      '--spool-max=10g',
      '--until',
      'end',
      '-q',
      '--Log_Level',
      'debug',
      '--idle',
      '5s',
    ])
    expect(flags).toMatchObject({ giveUpAfter: 'first', spoolMax: 10 * 1024 ** 3, quiet: true, logLevel: 'debug' })
    expect(until).toEqual({ point: { kind: 'end' }, idle: 5000 })
    expect(parse(['--from', '-', '--to', '-', '--give-up-after', '10m']).flags.giveUpAfter).toBe(600_000)
  })

  test('--until takes idle and count alone, and times with their zone only', () => {
    const until = (...words: string[]): unknown => parse(['--from', '-', '--to', '-', '--until', ...words]).until
    expect(until('idle=30s')).toEqual({ idle: 30_000 })
    expect(until('count=3', 'idle=1m')).toEqual({ count: 3, idle: 60_000 })
    expect(until('2020-01-01T00:00:00+01:00')).toEqual({ point: { kind: 'time', at: Date.UTC(2019, 11, 31, 23) } })
    const untilFault = (...words: string[]): readonly string[] =>
      faults(['--from', '-', '--to', '-', '--until', ...words])
    expect(untilFault('2020-01-01T00:00')).toEqual([expect.stringContaining('needs its zone: 2020-01-01T00:00Z')])
    expect(untilFault('2999-01-01T00:00Z')).toEqual([expect.stringContaining('yet to come')])
    expect(untilFault('ende')).toEqual([expect.stringContaining('is not valid: end, a time')])
    expect(untilFault('end', 'count=1', '--count', '2')).toEqual(['--count is given twice'])
  })

  test('--append is repeatable, JSON or text, and checked', () => {
    const line = parse([
      '--from',
      '-',
      '--to',
      '-',
      '--append',
      'a=b=c',
      '--append',
      'n:={"t":{now:unix},"h":"{hostname}"}',
      '--append',
      'host={hostname}',
    ])
    expect(line.appends).toEqual([
      { name: 'a', kind: 'text', value: 'b=c' },
      { name: 'n', kind: 'json', value: '{"t":{now:unix},"h":"{hostname}"}' },
      { name: 'host', kind: 'text', value: '{hostname}' },
    ])
    expect(
      faults([
        '--from',
        '-',
        '--to',
        '-',
        '--append',
        'a:={now}',
        '--append',
        'b',
        '--append',
        '=c',
        '--append',
        'x=1',
        '--append',
        'x=2',
      ]),
    ).toEqual([
      expect.stringContaining('what follows a:= is no JSON'),
      expect.stringContaining('NAME=VALUE or NAME:=JSON'),
      expect.stringContaining('NAME=VALUE or NAME:=JSON'),
      "--append names 'x' twice",
    ])
  })

  test('a flag without its value, given twice, or against another', () => {
    expect(faults(['--from', '-', '--to', '-', '--name', '--quiet', '--quiet'])).toEqual([
      '--name needs a value: --name NAME',
      '--quiet is given twice',
    ])
    expect(faults(['--from', '-', '--to', '-', '--spool', '/x', '--no-spool'])).toEqual([
      '--spool and --no-spool exclude each other',
    ])
    expect(faults(['--from', '-', '--to', '-', '--quiet=maybe'])).toEqual([
      expect.stringContaining('true or false is expected'),
    ])
  })
})

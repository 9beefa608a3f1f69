/**
 * Pairs of lines that mean the same endpoint, and pairs that do not. Lines of one cluster count as stored state
 * compares them: by a server in common.
 */
import { registry } from '../../src/endpoints/registry'
import { parseCommandLine } from '../../src/options/command-line'
import { identityOf, isEqual, isSameResource, type Identity } from '../../src/options/identity'
import { isSame } from '../../src/state/identity'

type Words = readonly string[]
const ARN = 'arn:aws:kinesis:eu-west-1:123456789012:stream/orders'

function identity(side: 'from' | 'to', words: Words): Identity {
  const argv = side === 'from' ? ['--from', ...words, '--to', 'discard:'] : ['--from', '-', '--to', ...words]
  const parsed = parseCommandLine(argv, {}, registry, { exists: () => false })[side][0]
  if (parsed === undefined) throw new Error('nothing there')
  return identityOf(parsed, '/work')
}
const asStored = ({
  hash,
  resourceHash,
  servers,
  former,
}: Identity): { id: string; label: string; meaning: { what: string; members: readonly string[] }; former: string } => ({
  id: hash,
  label: '',
  meaning: { what: resourceHash, members: servers },
  former,
})
const same = (side: 'from' | 'to', one: Words, other: Words): readonly boolean[] => {
  const [a, b] = [identity(side, one), identity(side, other)]
  return [isSame(asStored(a), { ...asStored(b), former: '' }), isSame(asStored(b), { ...asStored(a), former: '' })]
}

describe('the same, in other words', () => {
  test.each<['from' | 'to', Words, Words]>([
    ['to', ['s3://b/A'], ['s3://b', 'folder=A']],
    ['to', ['s3://b/A'], ['s3://b', 'prefix=A/']],
    ['to', ['s3://b/A/'], ['s3:', 'bucket-name=b', 'folder=/A/']],
    ['to', ['S3://b/A'], ['s3://b/A?region=eu-west-1']],
    ['to', ['s3://b/A', 'endpoint=http://h:9000'], ['s3://b/A', 'endpoint=http://h:9000/']],
    ['to', ['s3://b/A', 'endpoint=http://h'], ['s3://b/A', 'endpoint=HTTP://H:80']],
    ['to', ['s3://b/A', 'endpoint=https://h'], ['s3://b/A', 'endpoint=https://user:pass@h:443/']],
    ['from', ['kafka://h1:9092,h2:9093/t'], ['KAFKA://h2:9093,H1/t']],
    ['from', ['kafka://h1,h2/t'], ['kafka://h2,h3/t']],
    ['from', ['kafka://h1/a,b,~c.*'], ['kafka://h1/b,a,~c.*']],
    ['from', ['kafka://h1/a', 'group=g'], ['kafka://h0,h1/a', 'group.id=g']],
    ['from', ['kafka://h1/a', 'partition=3,0:10'], ['kafka://h1/a', 'partition=0:010,3']],
    ['from', ['kafka://alice@h1/a', 'password=x'], ['kafka://h1/a', 'user=alice', 'password=y']],
    ['from', ['kafka://[::1]/a'], ['kafka://[0:0:0:0:0:0:0:1]:9092/a']],
    ['to', ['kafka://h1/a'], ['kafka://h1', 'topic=a']],
    ['to', ['kafka://h1/a'], ['kafka://h1/', 'topic=a']],
    ['from', ['amqp://h', 'queue=q'], ['amqp://H:5672/%2F', 'queue=q']],
    ['from', ['amqp://h/', 'queue=q'], ['amqp://guest:guest@h/%2f', 'queue=q']],
    ['from', ['amqp://h', 'queue=q'], ['amqp://guest@h', 'queue=q']],
    ['from', ['amqp://h/v%20w', 'queue=q'], ['amqp://h/v w', 'queue=q']],
    ['from', ['amqps://a,b/v', 'queue=q'], ['amqps://b:5671,a:5671/v', 'queue=q']],
    ['to', ['amqp://h', 'queue=q'], ['amqp://h', 'key=q']],
    ['to', ['amqp://h', 'queue=q'], ['amqp://h', 'exchange=', 'key=q']],
    ['to', ['amqp://h', 'exchange=x'], ['amqp://h', 'exchange=x', 'key={key}']],
    ['from', ['kinesis:orders', 'region=eu-west-1'], ['kinesis:', 'stream-name=orders', 'region=eu-west-1']],
    ['from', [`kinesis:${ARN}`], ['kinesis:', `stream-arn=${ARN}`, 'region=eu-west-1']],
    ['from', ['kinesis:orders', 'shard=1', 'shard=2'], ['kinesis:orders', 'shard=shardId-000000000002', 'shard=1']],
    ['from', ['kinesis:orders', 'endpoint=http://h:4567'], ['kinesis:orders', 'endpoint=http://H:4567/']],
    [
      'from',
      ['kinesis:orders', 'region=r', 'leases=dynamodb:tab'],
      ['kinesis:orders', 'region=r', 'leases=dynamodb:tab', 'leases-region=r'],
    ],
    [
      'from',
      ['kinesis:orders', 'leases=dynamodb:tab', 'leases-endpoint=http://h:80'],
      ['kinesis:orders', 'leases=dynamodb:tab', 'leases-endpoint=http://h/'],
    ],
    ['from', ['ws://h/p?a=1'], ['WS://H:80/p?a=1']],
    ['from', ['wss://h'], ['wss://h:443/']],
    ['from', ['wss://h/?'], ['wss://h/']],
    ['from', ['a/../b'], ['file:///work/b']],
    ['from', ['-'], ['stdio:-']],
  ])('%s %j and %j', (side, one, other) => {
    expect(same(side, one, other)).toEqual([true, true])
  })
})

describe('not the same', () => {
  test.each<['from' | 'to', Words, Words]>([
    ['to', ['s3://b/A'], ['s3://b/a']],
    ['to', ['s3://b/A'], ['s3://c/A']],
    ['to', ['s3://b/A'], ['s3://b/A/B']],
    ['to', ['s3://b/A', 'region=eu-west-1'], ['s3://b/A', 'region=us-east-1']],
    ['to', ['s3://b/A', 'endpoint=http://h'], ['s3://b/A']],
    ['to', ['s3://b/A', 'endpoint=http://h'], ['s3://b/A', 'endpoint=https://h']],
    ['to', ['s3://b/A', 'endpoint=http://h:9000'], ['s3://b/A', 'endpoint=http://h:9001']],
    ['from', ['kafka://h1/t'], ['kafka://h2/t']],
    ['from', ['kafka://h1:9092/t'], ['kafka://h1:9094/t']],
    ['from', ['kafka://h/t'], ['kafka+tls://h/t']],
    ['from', ['kafka://h1/t'], ['kafka://h1/T']],
    ['from', ['kafka://h1/t'], ['kafka://h1/t,u']],
    ['from', ['kafka://h1/t', 'group=a'], ['kafka://h1/t', 'group=b']],
    ['from', ['kafka://h1/t', 'partition=0:10'], ['kafka://h1/t', 'partition=0:20']],
    ['from', ['kafka://{env:A}/t'], ['kafka://{env:a}/t']],
    ['from', ['kafka://h:{env:A}/t'], ['kafka://h:{env:B}/t']],
    ['to', ['kafka://h1/t'], ['kafka://h1', 'topic={json:t}', 'allow-topic=t']],
    ['from', ['amqp://h/v', 'queue=q'], ['amqp://h/w', 'queue=q']],
    ['from', ['amqp://h', 'queue=q'], ['amqp://h', 'queue=Q']],
    ['from', ['amqp://h', 'queue=q'], ['amqps://h', 'queue=q']],
    ['from', ['amqp://u:p@h', 'queue=q'], ['amqp://w:p@h', 'queue=q']],
    ['to', ['amqp://h', 'queue=q'], ['amqp://h', 'exchange=x', 'key=q']],
    ['to', ['amqp://h', 'exchange=x', 'key=a'], ['amqp://h', 'exchange=x', 'key=b']],
    ['to', ['amqp://h', 'queue={key}'], ['amqp://h', 'key={key}']],
    ['from', ['kinesis:orders', 'region=a'], ['kinesis:orders', 'region=b']],
    ['from', ['kinesis:orders'], ['kinesis:Orders']],
    ['from', ['kinesis:orders', 'region=eu-west-1'], [`kinesis:${ARN}`]],
    ['from', ['kinesis:orders', 'shard=1'], ['kinesis:orders', 'shard=1', 'shard=2']],
    ['from', ['kinesis:orders', 'leases=dynamodb:one'], ['kinesis:orders', 'leases=dynamodb:two']],
    ['from', ['ws://h/p?a=1'], ['ws://h/p?a=2']],
    ['from', ['ws://h/p'], ['wss://h/p']],
    ['from', ['ws://h/p'], ['ws://h/P']],
    ['from', ['ws://u:1@h/p'], ['ws://v:1@h/p']],
    ['from', ['ws://h/p', 'send=a'], ['ws://h/p', 'send=b']],
    ['from', ['file:a'], ['file:A']],
    ['from', ['generate:', 'seed=1'], ['generate:', 'seed=2']],
  ])('%s %j and %j', (side, one, other) => {
    expect(same(side, one, other)).toEqual([false, false])
  })
})

test('of one line, what shares a server and a topic is one thing given twice', () => {
  expect(isEqual(identity('to', ['kafka://h1,h2/t']), identity('to', ['kafka://h2,h3/t']))).toBe(true)
  expect(isEqual(identity('to', ['kafka://h1/t']), identity('to', ['kafka://h2/t']))).toBe(false)
  expect(isEqual(identity('to', ['s3://b/x', 'region=r']), identity('to', ['s3://b/x']))).toBe(false)
})

test('both ends of a line are compared by servers and things, whatever else is asked of them', () => {
  const ends = (from: Words, to: Words): boolean => isSameResource(identity('from', from), identity('to', to))
  expect(ends(['kafka://h1,h2/a,b', 'group=g'], ['kafka://h2', 'topic=b'])).toBe(true)
  expect(ends(['kafka://h1/a'], ['kafka://h1/b'])).toBe(false)
  expect(ends(['amqp://h', 'queue=q'], ['amqp://guest@h/%2F', 'key=q'])).toBe(true)
  expect(ends(['amqp://h', 'queue=q'], ['amqp://h', 'exchange=q'])).toBe(false)
  expect(ends(['kinesis:orders', 'shard=1'], ['kinesis:', 'stream-name=orders'])).toBe(true)
  expect(ends(['kinesis:orders', 'region=a'], ['kinesis:orders', 'region=b'])).toBe(false)
  expect(ends(['a'], ['file:./a'])).toBe(true)
  expect(ends(['-'], ['-'])).toBe(false)
})

test('secrets stand in no identity', () => {
  for (const [side, words] of [
    ['from', ['amqp://u:CANARY@h/v', 'queue=q']],
    ['from', ['wss://h/p?token=CANARY', 'header.A=CANARY', 'send=CANARY']],
    ['to', ['s3://b/A', 'endpoint=http://u:CANARY@h', 'secret-access-key=CANARY', 'access-key-id=x']],
  ] as const) {
    expect(JSON.stringify(identity(side, words))).not.toContain('CANARY')
  }
})

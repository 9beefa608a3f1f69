import { faultsOf, fullKey, alternativeKey, segmentPolicy } from '../../../src/endpoints/s3/policy'
import { metadataOf } from '../../../src/endpoints/s3/metadata'
import { MAX_METADATA, options } from '../../../src/endpoints/s3/options'
import { given, opened, type S3Options, segmentOf } from '../../support/s3-sink'

const at = (iso: string, fraction = 0): number => Date.parse(iso) + fraction
const keyOf = (words: Partial<S3Options>, receivedAt: number, sealedAt = receivedAt, id = 'f00d-7'): string =>
  segmentPolicy(given(words)).key({ receivedAt, sealedAt, id })
const periodOf = (words: Partial<S3Options>, receivedAt: number): string =>
  segmentPolicy(given(words)).period(receivedAt)

describe('keys of objects', () => {
  it('are the day as a folder, then time of day with nanoseconds and the id, in UTC', () => {
    expect(keyOf({}, at('2026-01-02T03:04:05.678Z', 0.25))).toBe('2026-01-02/030405.678250000-f00d-7.ndjson')
  })
  it('end in what compresses them', () => {
    expect(keyOf({ compression: 'gzip' }, at('2026-01-02T03:04:05Z'))).toBe(
      '2026-01-02/030405.000000000-f00d-7.ndjson.gz',
    )
    expect(keyOf({ compression: 'zstd' }, at('2026-01-02T03:04:05Z'))).toBe(
      '2026-01-02/030405.000000000-f00d-7.ndjson.zst',
    )
    expect(keyOf({ key: 'a/x.gz' }, 0)).toBe('a/x-f00d-7.gz')
    expect(keyOf({ key: '{id}.GZ' }, 0)).toBe('f00d-7.GZ')
    expect(segmentPolicy(given({ key: '{id}.GZ' })).compression).toBe('gzip')
    expect(segmentPolicy(given({ key: 'x.zst' })).compression).toBe('zstd')
    expect(segmentPolicy(given({ key: 'x.gz', compression: 'none' })).compression).toBe('none')
    expect(keyOf({ compression: 'gzip', key: '{id}.json' }, 0)).toBe('f00d-7.json.gz')
    expect(keyOf({ compression: 'gzip', key: '{id}.json.gz' }, 0)).toBe('f00d-7.json.gz')
  })
  it('tell the receive time of the first record, not the time of sealing', () => {
    expect(keyOf({}, at('2026-01-02T23:59:59.999Z'), at('2026-01-03T00:05:00Z'))).toMatch(
      /^2026-01-02\/235959\.999000000-/,
    )
  })
  it('hold each time variable of a template', () => {
    expect(
      keyOf({ key: 'y={yyyy}/m={mm}/d={dd}/{HH}-{MM}-{SS}.{nano}_{id}.log' }, at('2026-11-09T08:07:06.005Z')),
    ).toBe('y=2026/m=11/d=09/08-07-06.005000000_f00d-7.log')
  })
  it.each([
    ['{yyyy}/data.ndjson', '2026/data-f00d-7.ndjson'],
    ['{yyyy}/data.ndjson.gz', '2026/data-f00d-7.ndjson.gz'],
    ['{yyyy}/data', '2026/data-f00d-7'],
    ['{yyyy}/{HH}{MM}{SS}.{nano}', '2026/030405.000000000-f00d-7'],
    ['v1.2/{HH}', 'v1.2/03-f00d-7'],
    ['.hidden', '.hidden-f00d-7'],
    ['{id}/part.ndjson', 'f00d-7/part.ndjson'],
  ])('get the id before the extension where a template lacks it: %s', (key, expected) => {
    expect(keyOf({ key }, at('2026-01-02T03:04:05Z'))).toBe(expected)
  })
  it('never differ for one segment and never agree for two', () => {
    const policy = segmentPolicy(given({ key: '{yyyy}.ndjson' }))
    const facts = { receivedAt: at('2026-01-02T03:04:05Z'), sealedAt: at('2026-01-02T03:04:06Z') }
    expect(policy.key({ ...facts, id: 'a' })).toBe(policy.key({ ...facts, id: 'a' }))
    expect(policy.key({ ...facts, id: 'a' })).not.toBe(policy.key({ ...facts, id: 'b' }))
  })
  it('count nanoseconds to the last millisecond of a second', () => {
    expect(keyOf({ key: '{SS}.{nano}-{id}' }, at('2026-01-02T03:04:05.999Z', 0.75))).toBe('05.999750000-f00d-7')
    expect(keyOf({ key: '{SS}.{nano}-{id}' }, at('2026-01-02T03:04:05.000Z'))).toBe('05.000000000-f00d-7')
  })
})

describe('time zones of keys', () => {
  it('move the day', () => {
    expect(keyOf({ timeZone: 'Asia/Tokyo' }, at('2026-01-02T20:00:00Z'))).toBe(
      '2026-01-03/050000.000000000-f00d-7.ndjson',
    )
    expect(keyOf({ timeZone: 'America/St_Johns' }, at('2026-01-02T02:00:00Z'))).toBe(
      '2026-01-01/223000.000000000-f00d-7.ndjson',
    )
  })
  it('write midnight as 00, not as 24', () => {
    expect(keyOf({ timeZone: 'Europe/Berlin' }, at('2026-01-01T23:00:00Z'))).toBe(
      '2026-01-02/000000.000000000-f00d-7.ndjson',
    )
  })
  it('skip the hour that a clock put forward skips', () => {
    const words = { timeZone: 'Europe/Berlin', key: '{dd}/{HH}/{MM}-{id}' }
    expect(keyOf(words, at('2026-03-29T00:59:59Z'))).toBe('29/01/59-f00d-7')
    expect(keyOf(words, at('2026-03-29T01:00:00Z'))).toBe('29/03/00-f00d-7')
  })
  it('have the hour twice that a clock put back repeats, and no period changes between the two', () => {
    const words = { timeZone: 'Europe/Berlin', key: '{dd}/{HH}/{MM}-{id}' }
    expect(keyOf(words, at('2026-10-25T00:30:00Z'))).toBe('25/02/30-f00d-7')
    expect(keyOf(words, at('2026-10-25T01:30:00Z'))).toBe('25/02/30-f00d-7')
    expect(periodOf(words, at('2026-10-25T00:30:00Z'))).toBe(periodOf(words, at('2026-10-25T01:30:00Z')))
    expect(periodOf(words, at('2026-10-25T01:30:00Z'))).not.toBe(periodOf(words, at('2026-10-25T02:00:00Z')))
  })
})

describe('the period of an object', () => {
  it('is the day, by default, in the zone of the keys', () => {
    expect(periodOf({}, at('2026-01-02T00:00:00Z'))).toBe(periodOf({}, at('2026-01-02T23:59:59.999Z', 0.9)))
    expect(periodOf({}, at('2026-01-02T23:59:59.999Z'))).not.toBe(periodOf({}, at('2026-01-03T00:00:00Z')))
    expect(periodOf({ timeZone: 'Europe/Berlin' }, at('2026-01-02T22:59:59Z'))).not.toBe(
      periodOf({ timeZone: 'Europe/Berlin' }, at('2026-01-02T23:00:00Z')),
    )
  })
  it('is every hour where the hour is a folder', () => {
    const words = { key: '{yyyy}-{mm}-{dd}/{HH}/{MM}{SS}-{id}.ndjson' }
    expect(periodOf(words, at('2026-01-02T03:00:00Z'))).toBe(periodOf(words, at('2026-01-02T03:59:59Z')))
    expect(periodOf(words, at('2026-01-02T03:59:59Z'))).not.toBe(periodOf(words, at('2026-01-02T04:00:00Z')))
  })
  it('never changes where no folder holds a time, or the id alone does', () => {
    for (const key of ['{yyyy}{mm}{dd}-{id}', 'all/{HH}{MM}', '{id}/x'])
      expect(periodOf({ key }, at('2026-01-02T00:00:00Z'))).toBe(periodOf({ key }, at('2031-12-31T23:59:59Z')))
  })
  it('does not change with a time in the name after the last slash', () => {
    expect(periodOf({ key: 'a{dd}/b{dd}-{id}' }, at('2026-01-02T00:00:00Z'))).toBe('a02/')
  })
  it('never changes with layout=original, whose keys tell the time of sealing', () => {
    expect(periodOf({ layout: 'original' }, 0)).toBe(periodOf({ layout: 'original' }, at('2026-01-02T00:00:00Z')))
  })
})

describe('layout=original', () => {
  it('names the object after the local time at which it was sealed', () => {
    expect(
      keyOf(
        { layout: 'original', timeZone: 'America/New_York' },
        at('2006-01-02T19:00:00Z'),
        at('2006-01-02T20:04:05Z'),
      ),
    ).toBe('2006-01-02/150405.000000000')
  })
  it('takes the zone of this machine where none is given', () => {
    const sealed = new Date(2026, 4, 6, 7, 8, 9, 10)
    expect(keyOf({ layout: 'original' }, 0, sealed.getTime())).toBe('2026-05-06/070809.010000000')
  })
})

describe('another key for another content', () => {
  it('is told by the content, before the extension', () => {
    expect(alternativeKey('a/b.ndjson.gz', 'abcdef0123456789ffff')).toBe('a/b-abcdef0123456789.ndjson.gz')
    expect(alternativeKey('2006-01-02/150405.000000000', 'abcdef0123456789ffff')).toBe(
      '2006-01-02/150405.000000000-abcdef0123456789',
    )
  })
})

describe('what a policy says', () => {
  it('has the triggers as they were given, and a target that names bucket, folder and server', () => {
    expect(
      segmentPolicy(given({ commitFileSize: 5, commitDuration: 6, uploadEvery: 7, framing: 'envelope' })),
    ).toMatchObject({
      sealBytes: 5,
      sealAge: 6,
      retryEvery: 7,
      framing: 'envelope',
      compression: 'none',
      target: 's3://lake/trades',
    })
    expect(segmentPolicy(given({ endpoint: 'http://127.0.0.1:9000/' }, 'lake', '')).target).toBe(
      's3://lake endpoint=http://127.0.0.1:9000',
    )
  })
  it("takes bucket and folder from the original's options as well", () => {
    expect(segmentPolicy(given({ bucketName: 'lake', folder: '/a/b/' }, '', '')).target).toBe('s3://lake/a/b')
  })
  it('has no slash before a key without a folder', () => {
    expect(fullKey('', 'a/b')).toBe('a/b')
    expect(fullKey('f', 'a/b')).toBe('f/a/b')
  })
})

describe('faults of the options', () => {
  it('has none by default', () => {
    expect(faultsOf(given())).toEqual([])
  })
  it.each<[string, Partial<S3Options>, RegExp]>([
    ['an unknown variable', { key: '{year}/{id}' }, /\{year\} is not known; there are \{yyyy\}/],
    ['a field of a record', { key: '{json:user}/{id}' }, /\{json:user\} is not known/],
    ['a brace without its pair', { key: '{yyyy/{id}' }, /brace|not known/],
    ['a key that climbs', { key: '../{id}' }, /\.\./],
    ['an empty name', { key: 'a//{id}' }, /empty name/],
    ['a leading slash', { key: '/a/{id}' }, /begin or end/],
    ['a trailing slash', { key: '{id}/' }, /begin or end/],
    ['a control character', { key: 'a\n{id}' }, /control character/],
    [
      'a key of more than 1,024 bytes',
      { key: `${'ü'.repeat(500)}{id}` },
      /too long: 1\d\d\d bytes, where S3 takes 1024/,
    ],
    ['a zone that does not exist', { timeZone: 'Europe/Atlantis' }, /Europe\/Atlantis is not known/],
    ['two layouts', { key: '{id}', layout: 'original' }, /exclude each other/],
    ['a level without compression', { compressionLevel: 6 }, /needs compression=/],
    ['a level that gzip has not', { compression: 'gzip', compressionLevel: 10 }, /9 at the most/],
    ['a KMS key without KMS', { kmsKeyId: 'k' }, /needs sse=aws:kms/],
    ['half a pair of keys', { accessKeyId: 'k' }, /go together/],
    ['a token without keys', { sessionToken: 't' }, /session-token goes with/],
    ['an external id without a role', { externalId: 'e' }, /goes with role-arn/],
    ['an endpoint without scheme', { endpoint: '127.0.0.1:9000' }, /endpoint is a URL/],
    ['a region that is none', { region: 'eu west 1' }, /region=eu west 1 is none/],
    ['eleven tags', { tag: Array.from({ length: 11 }, (_, i) => [`t${i}`, 'v'] as const) }, /10 tags at the most/],
    [
      'a tag twice',
      {
        tag: [
          ['a', '1'],
          ['a', '2'],
        ],
      },
      /twice/,
    ],
    ['what a tag cannot hold', { tag: [['a', 'b & c']] }, /letters, digits/],
    ['another bucket than the URI', { bucketName: 'other' }, /two buckets/],
    ['another folder than the URI', { folder: 'other' }, /two folders/],
  ])('names %s', (_, words, message) => {
    expect(faultsOf(given(words)).join('\n')).toMatch(message)
  })
  it('names every fault at once', () => {
    expect(faultsOf(given({ key: '{nope}', accessKeyId: 'a', timeZone: 'X/Y' }, '')).length).toBe(4)
  })
  it('does not pass over a region of the environment that is none', async () => {
    const before = process.env['AWS_REGION']
    process.env['AWS_REGION'] = 'eu west 1'
    try {
      await expect(
        opened({ endpoint: 'http://127.0.0.1:9', accessKeyId: 'k', secretAccessKey: 's' }, 'lake'),
      ).rejects.toThrow(/settings of S3 cannot be used.*eu west 1/)
    } finally {
      if (before === undefined) delete process.env['AWS_REGION']
      else process.env['AWS_REGION'] = before
    }
  })
  it('wants a bucket, and no credentials in the URI', () => {
    expect(faultsOf(given({}, ''))).toEqual([expect.stringMatching(/no bucket/)])
    const { options: o, uri } = given()
    expect(faultsOf({ options: o, uri: { ...uri, user: 'key', password: 'hunter2' } }).join()).toMatch(/do not belong/)
    expect(faultsOf({ options: o, uri: { ...uri, user: 'key', password: 'hunter2' } }).join()).not.toMatch(/hunter2/)
  })
})

describe('the units of the original', () => {
  it('are kilobytes, minutes and seconds where a number stands alone', () => {
    expect(options.commitFileSize.parse('500')).toBe(500 * 1024)
    expect(options.commitDuration.parse('2')).toBe(120_000)
    expect(options.uploadEvery.parse('3')).toBe(3000)
    expect([
      options.commitFileSize.parse('0'),
      options.commitDuration.parse('0'),
      options.uploadEvery.parse('0'),
    ]).toEqual([0, 0, 0])
  })
})

describe('metadata of an object', () => {
  const bytes = (metadata: Record<string, string>): number =>
    Object.entries(metadata).reduce((sum, [name, value]) => sum + `x-amz-meta-${name}`.length + value.length, 0)
  it('tells sha256, length, count and all facts', () => {
    const segment = segmentOf(Buffer.from('a\n'), { count: 1, facts: { 'first-sequence': '7', positions: 'stdin:9' } })
    expect(metadataOf(segment)).toEqual({
      'manifold-first-sequence': '7',
      'manifold-positions': 'stdin:9',
      'manifold-sha256': segment.sha256,
      'manifold-length': '2',
      'manifold-count': '1',
    })
  })
  it('cuts the longest facts to what S3 takes, and never what identifies the content', () => {
    const segment = segmentOf(Buffer.from('a\n'), {
      facts: { 'first-sequence': '7', positions: 'p'.repeat(5000), gaps: 'g'.repeat(3000) },
    })
    const metadata = metadataOf(segment)
    expect(bytes(metadata)).toBeLessThanOrEqual(MAX_METADATA)
    expect(bytes(metadata)).toBeGreaterThan(MAX_METADATA - 100)
    expect(metadata['manifold-sha256']).toBe(segment.sha256)
    expect(metadata['manifold-first-sequence']).toBe('7')
    expect(metadata['manifold-positions']).toMatch(/^p+\.\.\.$/)
  })
  it('holds with a hundred small facts', () => {
    const segment = segmentOf(Buffer.from('a\n'), {
      facts: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`fact-${i}`, 'value'])),
    })
    const metadata = metadataOf(segment)
    expect(bytes(metadata)).toBeLessThanOrEqual(MAX_METADATA)
    expect(metadata).toMatchObject({ 'manifold-sha256': segment.sha256, 'manifold-length': '2', 'manifold-count': '1' })
  })
  it('is printable whatever the facts hold', () => {
    expect(metadataOf(segmentOf(Buffer.from('a\n'), { facts: { Gaps: ' a\r\nb  c\u00fc ' } }))['manifold-gaps']).toBe(
      'a??b c?',
    )
  })
})

/** Finds faults before anything is opened. */
import { awsFaults } from '../../aws/credentials'
import type { Given, Role } from '../../options/define'
import { keyFaults } from './produce/partition-keys'
import type { KinesisOptions } from './options'
import { addressOf, streamNames } from './settings'
import { parseStart } from './consume/start'

/** Faults over several options, one line each, without secrets. */
export function faultsOf(given: Given<KinesisOptions>, role: Role): readonly string[] {
  return [
    ...streamFaults(given),
    ...(role === 'source' ? [...sourceFaults(given), ...consumerFaults(given)] : keyFaults(given.options)),
    ...awsFaults(given.options),
  ]
}

/** Placeholders stand as typed: what they will say is judged at opening. */
function hasPlaceholder(text: string): boolean {
  return text.includes('{')
}

function streamFaults(given: Given<KinesisOptions>): readonly string[] {
  const faults: string[] = []
  const all = streamNames(given)
  if (all.length === 0)
    return [
      'no stream is named: kinesis:NAME, kinesis:arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, stream-name= or stream-arn=',
    ]
  const addresses = all
    .filter((text) => !hasPlaceholder(text))
    .flatMap((text) => {
      try {
        return [addressOf(text)]
      } catch (error) {
        faults.push((error as Error).message)
        return []
      }
    })
  const { streamArn, region } = given.options
  if (streamArn !== undefined && !hasPlaceholder(streamArn) && !streamArn.startsWith('arn:'))
    faults.push('stream-arn= is an ARN: arn:aws:kinesis:REGION:ACCOUNT:stream/NAME; a name goes into stream-name=')
  const names = [...new Set(addresses.map(({ name }) => name))]
  const arns = [...new Set(addresses.flatMap(({ arn }) => arn ?? []))]
  if (names.length > 1) faults.push(`several streams are named: ${names.join(' and ')}`)
  else if (arns.length > 1) faults.push(`several streams are named: ${arns.join(' and ')}`)
  const wrong =
    region === undefined || hasPlaceholder(region)
      ? undefined
      : addresses.find((address) => address.region !== undefined && address.region !== region)
  if (wrong !== undefined) faults.push(`region=${region ?? ''} is not that of the ARN, ${wrong.region ?? ''}`)
  return faults
}

function sourceFaults({ options }: Given<KinesisOptions>): readonly string[] {
  const faults: string[] = []
  const { start, shard, leases } = options
  if (!hasPlaceholder(start)) {
    try {
      const { kind } = parseStart(start, 0)
      if ((kind === 'at' || kind === 'after') && shard.length !== 1)
        faults.push('start= with a sequence number is about one shard: name it with shard=')
    } catch (error) {
      faults.push(`start=: ${(error as Error).message}`)
    }
  }
  if (shard.length > 0 && leases !== undefined)
    faults.push('shard= and leases= exclude each other: with leases the processes share all shards out')
  if (leases === undefined) {
    const used = (
      [
        ['leases-endpoint', options.leasesEndpoint],
        ['leases-region', options.leasesRegion],
        ['worker-id', options.workerId],
        ['max-leases', options.maxLeases],
      ] as const
    ).filter(([, value]) => value !== undefined)
    for (const [name] of used) faults.push(`${name}= is for leases=dynamodb:TABLE, which is missing`)
  }
  for (const [name, url] of [['leases-endpoint', options.leasesEndpoint]] as const)
    if (url !== undefined && !hasPlaceholder(url) && !/^https?:\/\/[^/]/i.test(url))
      faults.push(`${name} is a URL: http://HOST:PORT or https://HOST`)
  return faults
}

function consumerFaults(given: Given<KinesisOptions>): readonly string[] {
  const faults: string[] = []
  const { consumerName, consumerArn } = given.options
  if (consumerName !== undefined && consumerArn !== undefined)
    faults.push('consumer-name= and consumer-arn= both name a consumer: give one')
  if (consumerName !== undefined && !hasPlaceholder(consumerName) && !/^[a-zA-Z0-9_.-]{1,128}$/.test(consumerName))
    faults.push('consumer-name= is made of letters, digits, _, - and ., 128 at most')
  if (consumerArn === undefined || hasPlaceholder(consumerArn)) return faults
  const [, stream, name] =
    /^(arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream\/([a-zA-Z0-9_.-]+))\/consumer\/[a-zA-Z0-9_.-]+:\d+$/.exec(
      consumerArn,
    ) ?? []
  if (stream === undefined)
    return [
      ...faults,
      'consumer-arn= is an ARN such as arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/CONSUMER:TIME',
    ]
  const other = streamNames(given).find(
    (text) => !hasPlaceholder(text) && text !== (text.startsWith('arn:') ? stream : name),
  )
  if (other !== undefined)
    faults.push(
      `consumer-arn= is a consumer of the stream ${other.startsWith('arn:') ? stream : (name ?? '')}, not of ${other}`,
    )
  return faults
}

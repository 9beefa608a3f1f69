/** Finds which stream is meant by URI and options. */
import type { Given } from '../../options/define'
import type { KinesisOptions } from './options'

export interface StreamAddress {
  readonly name: string /** Absent: a stream of the account that is logged in. */
  readonly arn?: string /** Of the ARN. */
  readonly region?: string
}

const ARN = /^arn:aws[a-z-]*:kinesis:([a-z0-9-]+):\d{12}:stream\/([a-zA-Z0-9_.-]{1,128})$/
const NAME = /^[a-zA-Z0-9_.-]{1,128}$/

/** Throws an Error that says what a stream is called. */
export function addressOf(text: string): StreamAddress {
  const [, region, name] = ARN.exec(text) ?? []
  if (name !== undefined && region !== undefined) return { name, arn: text, region }
  if (text.startsWith('arn:'))
    throw new Error(`'${text}' is not the ARN of a stream: arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`)
  if (!NAME.test(text))
    throw new Error(`'${text}' cannot be the name of a stream: letters, digits, _, - and ., 128 at most`)
  return { name: text }
}

/** All that name the stream, as they were given. */
export function streamNames({ uri, options }: Given<KinesisOptions>): readonly string[] {
  return [uri.path, options.streamName, options.streamArn].filter(
    (text): text is string => text !== undefined && text !== '',
  )
}

/** Of a command line that was checked. An ARN says most. */
export function streamAddress(given: Given<KinesisOptions>): StreamAddress {
  const addresses = streamNames(given).map(addressOf)
  const address = addresses.find(({ arn }) => arn !== undefined) ?? addresses[0]
  if (address === undefined) throw new Error('no stream is named')
  return address
}

/** All harnesses by the first scheme of their endpoint; several kinds of one endpoint have a word more. */
import type { Harness } from '../harness'
import { amqp } from './amqp'
import { discard } from './discard'
import { file } from './file'
import { generate } from './generate'
import { kafka } from './kafka'
import { kinesis } from './kinesis'
import { s3 } from './s3'
import { stdio } from './stdio'
import { ws } from './ws'

export const harnesses: Readonly<Record<string, Harness>> = {
  ...amqp,
  discard,
  file,
  generate,
  ...kafka,
  ...kinesis,
  s3,
  stdio,
  ws,
}

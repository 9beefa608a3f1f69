/** Creates the source of a queue or a stream. They share connection, topology and properties. */
import type { CreateSource } from '../../options/define'
import { isStream } from './check'
import type { AmqpOptions } from './options'
import { QueueSource } from './queue-source'
import { StreamSource } from './stream-source'

export const create: CreateSource<AmqpOptions> = (target) =>
  isStream(target.options) ? new StreamSource(target) : new QueueSource(target)

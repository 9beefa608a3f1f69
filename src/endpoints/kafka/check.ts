/** Checks options that depend on each other, before anything is opened. */
import { tlsOptionFaults } from '../../options/tls'
import type { Given, Role } from '../../options/define'
import { MECHANISMS, type KafkaOptions } from './options'
import { allowFilter, isTopicName, parseTemplate } from './produce/routing'
import { mechanismOf } from './settings'
import { parseTopics } from './consume/topics'

/** A line for each fault. */
export function optionFaults(given: Given<KafkaOptions>, role: Role): readonly string[] {
  return [...(role === 'sink' ? sinkFaults(given) : sourceFaults(given)), ...connectionFaults(given)]
}

function sourceFaults({ options, uri }: Given<KafkaOptions>): readonly string[] {
  const faults: string[] = []
  const path = uri.path.replace(/^\//, '')
  try {
    const { names, pattern } = parseTopics(path)
    if (names.length === 0 && pattern === undefined)
      faults.push('a topic is needed: kafka://HOST/TOPIC, or several: /TOPIC,TOPIC, /~REGEX')
    for (const name of names) if (!isTopicName(name)) faults.push(`'${name}' cannot be the name of a topic`)
    if (options.partition !== undefined && (names.length !== 1 || pattern !== undefined))
      faults.push("option 'partition' needs exactly one topic")
  } catch {
    faults.push(`'${path}' has a regular expression after ~ that is none`)
  }
  if (options.group !== undefined && options.partition !== undefined)
    faults.push("options 'group' and 'partition' exclude each other: in a group the brokers share the partitions out")
  if (options.group === '') faults.push("option 'group' is empty")
  if (options.instanceId !== undefined && options.group === undefined) faults.push("option 'instance-id' needs a group")
  if (options.heartbeatEvery * 2 > options.sessionTimeout)
    faults.push(
      "option 'heartbeat-every' is more than half of session-timeout: a single heartbeat that is late would cost the membership",
    )
  return faults
}

function sinkFaults({ options, uri }: Given<KafkaOptions>): readonly string[] {
  const faults: string[] = []
  const path = uri.path.replace(/^\//, '')
  if (path === '' && options.topic === undefined) faults.push('a topic is needed: kafka://HOST/TOPIC or topic=')
  if (path !== '' && options.topic !== undefined)
    faults.push("the URI and option 'topic' both name a topic: one of them is enough")
  if (path !== '' && !isTopicName(path))
    faults.push(
      path.includes(',') || path.startsWith('~')
        ? 'a sink writes to one topic, or to those that topic={json:PATH} names'
        : `'${path}' cannot be the name of a topic`,
    )
  if (options.topic !== undefined && path === '') {
    try {
      const template = parseTemplate(options.topic)
      if (template.kind === 'text' && !isTopicName(template.text))
        faults.push(`'${template.text}' cannot be the name of a topic`)
      if (template.kind === 'json' && options.allowTopic.length === 0)
        faults.push('topic={json:PATH} needs allow-topic=NAME or allow-topic=~REGEX, for records may name any topic')
      if (template.kind === 'text' && options.allowTopic.length > 0)
        faults.push("option 'allow-topic' is for topic={json:PATH}")
    } catch (error) {
      faults.push(`option 'topic': ${(error as Error).message}`)
    }
  }
  try {
    allowFilter(options.allowTopic)
  } catch {
    faults.push("option 'allow-topic' has a regular expression after ~ that is none")
  }
  if (options.key !== undefined)
    try {
      parseTemplate(options.key)
    } catch (error) {
      faults.push(`option 'key': ${(error as Error).message}`)
    }
  if (options.key !== undefined && options.keySeparator !== undefined)
    faults.push("options 'key' and 'key-separator' exclude each other")
  if (options.keySeparator === '') faults.push("option 'key-separator' is empty")
  return faults
}

function connectionFaults(given: Given<KafkaOptions>): readonly string[] {
  const { options, uri } = given
  const faults: string[] = []
  const mechanism = mechanismOf(given)
  const user = options.user ?? uri.user
  const password = options.password ?? uri.password
  if (options.user !== undefined && uri.user !== undefined)
    faults.push("the URI and option 'user' both name a user: one of them is enough")
  if (options.password !== undefined && uri.password !== undefined)
    faults.push("the URI and option 'password' both have a password: one of them is enough")
  if (['plain', 'scram-sha-256', 'scram-sha-512'].includes(mechanism) && (user === undefined || password === undefined))
    faults.push(`sasl=${mechanism} needs ${user === undefined ? 'user=' : 'password='}`)
  if (mechanism === 'oauthbearer' && options.token === undefined) faults.push('sasl=oauthbearer needs token=')
  if (mechanism !== 'oauthbearer' && options.token !== undefined)
    faults.push(`option 'token' is for sasl=oauthbearer, not ${mechanism}`)
  if (['none', 'oauthbearer', 'aws-msk-iam'].includes(mechanism) && user !== undefined)
    faults.push(`sasl=${mechanism} takes no user; with one it is ${MECHANISMS.slice(1, 4).join(', ')}`)
  if (mechanism === 'aws-msk-iam' && uri.scheme !== 'kafka+tls')
    faults.push('sasl=aws-msk-iam goes over TLS alone: write kafka+tls://')
  if ((options.accessKeyId === undefined) !== (options.secretAccessKey === undefined))
    faults.push("options 'access-key-id' and 'secret-access-key' go together")
  faults.push(
    ...tlsOptionFaults(options, uri.scheme === 'kafka' ? { scheme: 'kafka', instead: 'kafka+tls' } : undefined),
  )
  return faults
}

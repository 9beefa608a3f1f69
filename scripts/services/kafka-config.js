/**
 * The configuration of a broker for tests: one KRaft node on loopback that starts and comes back quickly. `secure` adds
 * listeners with SASL and TLS and an authorizer; clients of the plain listener may do everything.
 */
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
const { certificates } = require('./certificates')

/**
 * alice may do everything. carol may only read topics `readable…`, write topics `writable…` and use groups `carol…`.
 * Both can log in by PLAIN, SCRAM, OAUTHBEARER (`sub`) and certificate.
 */
const users = { alice: 'alice-secret', carol: 'carol-secret' }
const OAUTH = { issuer: 'manifold-test', audience: 'kafka' }
const MODULES = 'org.apache.kafka.common.security'

/** The listeners of a node, each with a port, in this order. */
const plainListeners = ['plain', 'controller']
const secureListeners = [...plainListeners, 'sasl', 'saslTls', 'tls', 'mutualTls']

const base = {
  'process.roles': 'broker,controller',
  'node.id': 1,
  'controller.listener.names': 'CONTROLLER',
  'inter.broker.listener.name': 'PLAIN',
  'listener.security.protocol.map':
    'PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL,TLS:SSL,MUTUALTLS:SSL',
  'auto.create.topics.enable': false,
  'num.partitions': 1,
  ...Object.fromEntries(
    ['offsets.topic', 'transaction.state.log', 'share.coordinator.state.topic'].flatMap((topic) => [
      [`${topic}.replication.factor`, 1],
      [`${topic}.num.partitions`, 1],
    ]),
  ),
  'transaction.state.log.min.isr': 1,
  'share.coordinator.state.topic.min.isr': 1,
  'group.initial.rebalance.delay.ms': 0,
  // Tests of a member that died need not wait the usual 6 s.
  'group.min.session.timeout.ms': 500,
  // A node that was killed is let in again once its former session is over.
  'broker.session.timeout.ms': 1500,
  'broker.heartbeat.interval.ms': 300,
  // Tests write records that say they are years old, so only topics that set a retention forget any.
  'log.retention.ms': -1,
  // Retention and compaction run often enough that a test sees their effect within about a second.
  'log.initial.task.delay.ms': 500,
  'log.retention.check.interval.ms': 500,
  'log.cleaner.backoff.ms': 500,
  'log.segment.delete.delay.ms': 500,
  'log.cleaner.dedupe.buffer.size': 4 << 20,
  'num.network.threads': 2,
  'num.io.threads': 4,
}

function listener(name, mechanisms) {
  return Object.fromEntries(Object.entries(mechanisms).map(([key, value]) => [`listener.name.${name}.${key}`, value]))
}

function security(dir) {
  const pem = certificates(path.join(dir, 'tls'), Object.keys(users))
  const store = path.join(dir, 'tls', 'server-store.pem')
  fs.writeFileSync(store, fs.readFileSync(pem.key, 'utf8') + fs.readFileSync(pem.cert, 'utf8'), { mode: 0o600 })
  const login = {
    'plain.sasl.jaas.config': `${MODULES}.plain.PlainLoginModule required ${Object.entries(users)
      .map(([name, password]) => `user_${name}="${password}"`)
      .join(' ')};`,
    'scram-sha-256.sasl.jaas.config': `${MODULES}.scram.ScramLoginModule required;`,
    'scram-sha-512.sasl.jaas.config': `${MODULES}.scram.ScramLoginModule required;`,
    'oauthbearer.sasl.jaas.config': `${MODULES}.oauthbearer.OAuthBearerLoginModule required;`,
  }
  return {
    certificates: pem,
    properties: {
      'ssl.keystore.type': 'PEM',
      'ssl.keystore.location': store,
      'ssl.truststore.type': 'PEM',
      'ssl.truststore.location': pem.ca,
      'ssl.principal.mapping.rules': 'RULE:^CN=(.*)$/$1/,DEFAULT',
      'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
      'sasl.oauthbearer.jwks.endpoint.url': `file://${path.join(dir, 'tls', 'jwks.json')}`,
      'sasl.oauthbearer.expected.issuer': OAUTH.issuer,
      'sasl.oauthbearer.expected.audience': OAUTH.audience,
      ...listener('sasl', login),
      ...listener('sasltls', {
        ...login,
        'oauthbearer.sasl.server.callback.handler.class': `${MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler`,
      }),
      ...listener('mutualtls', { 'ssl.client.auth': 'required' }),
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users': 'User:ANONYMOUS;User:alice',
    },
  }
}

/** Returns the key that signs tokens; its public half lies where the broker looks for it. */
function signingKey(dir) {
  const file = path.join(dir, 'tls', 'token.key')
  if (!fs.existsSync(file)) {
    const { privateKey, publicKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 })
    fs.writeFileSync(
      path.join(dir, 'tls', 'jwks.json'),
      JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'RS256' }] }),
    )
    fs.writeFileSync(file, privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
  }
  return crypto.createPrivateKey(fs.readFileSync(file))
}

/** Makes a JSON Web Token: signed for the listener with TLS, without signature for the one without TLS. */
function token(key, { sub, seconds = 3600, signed = true, claims = {} }) {
  const now = Math.floor(Date.now() / 1000)
  const text = [
    signed ? { alg: 'RS256', kid: 'one', typ: 'JWT' } : { alg: 'none' },
    { sub, iat: now, exp: now + seconds, iss: OAUTH.issuer, aud: OAUTH.audience, scope: [], ...claims },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${text}.${signed ? crypto.sign('sha256', Buffer.from(text), key).toString('base64url') : ''}`
}

/** Writes `server.properties`. @returns the file, the JVM's arguments, and settings for clients of a secure node */
function writeConfig(dir, ports, { secure, properties, host = '127.0.0.1' }) {
  const names = secure ? secureListeners : plainListeners
  const listeners = names.map((name, i) => `${name.toUpperCase()}://127.0.0.1:${ports[i]}`)
  // A certificate is issued for a name, so clients that verify it must connect by that name.
  const advertised = listeners
    .filter((_, i) => names[i] !== 'controller')
    .map((each) => each.replace('127.0.0.1', /TLS:/.test(each) ? 'localhost' : host))
  const more = secure ? security(dir) : { properties: {} }
  const key = secure ? signingKey(dir) : undefined
  const all = {
    ...base,
    'log.dirs': path.join(dir, 'data'),
    'controller.quorum.voters': `1@127.0.0.1:${ports[1]}`,
    listeners: listeners.join(','),
    'advertised.listeners': advertised.join(','),
    ...more.properties,
    ...properties,
  }
  const file = path.join(dir, 'server.properties')
  fs.writeFileSync(
    file,
    Object.entries(all)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
    { mode: 0o600 },
  )
  return {
    file,
    jvm: secure
      ? [`-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=${all['sasl.oauthbearer.jwks.endpoint.url']}`]
      : [],
    clients: secure
      ? {
          users,
          certificates: more.certificates,
          token: (ask) => token(key, ask),
          listeners: Object.fromEntries(
            secureListeners.map((name, i) => [name, `${/[tT]ls/.test(name) ? 'localhost' : host}:${ports[i]}`]),
          ),
        }
      : {},
  }
}

module.exports = { base, plainListeners, secureListeners, users, writeConfig }

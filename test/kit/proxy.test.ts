import { isExempt, proxyFromEnvironment, proxyLogin, proxyUrl } from '../../src/kit/proxy'

test.each<[string, string, boolean]>([
  ['*', 'any.example', true],
  ['a.example', 'a.example', true],
  ['A.Example', 'a.example.', true],
  ['example', 'notexample', false],
  ['a.example', 'sub.a.example', true],
  ['.a.example', 'sub.a.example', true],
  ['.a.example', 'a.example', true],
  ['*.a.example', 'sub.a.example', true],
  ['*.a.example', 'a.example', false],
  ['a.example:8080', 'a.example', false],
  ['a.example:443', 'a.example', true],
  ['b.example , a.example', 'a.example', true],
  ['b.example a.example', 'a.example', true],
  ['', 'a.example', false],
  [',,', 'a.example', false],
  ['127.0.0.1', '127.0.0.1', true],
  ['10.0.0.0/8', '10.200.3.4', true],
  ['10.0.0.0/8', '11.0.0.1', false],
  ['10.0.0.0/8:443', '10.0.0.1', true],
  ['10.0.0.0/8:80', '10.0.0.1', false],
  ['10.0.0.1-10.0.0.9', '10.0.0.5', true],
  ['10.0.0.1-10.0.0.9', '10.0.0.10', false],
  ['10.0.0.0/99', '10.0.0.1', false],
  ['::1', '::1', true],
  ['[::1]', '::1', true],
  ['[::1]:443', '::1', true],
  ['[::1]:80', '::1', false],
  ['0:0:0:0:0:0:0:1', '::1', true],
  ['fd00::/8', 'fd12::3', true],
  ['fd00::/8', 'fe80::1', false],
  ['::1', '127.0.0.1', false],
  ['1', '127.0.0.1', false],
])('NO_PROXY=%s and https://%s: exempt is %p', (list, host, exempt) => {
  expect(isExempt(host, 443, list)).toBe(exempt)
})

const at = (secure: boolean) => ({ secure, host: 'a.example', port: secure ? 443 : 80 })

test('each scheme has its variable, lower case first; ALL_PROXY is for both', () => {
  expect(proxyFromEnvironment(at(true), { HTTP_PROXY: 'http://p:1' })).toBeUndefined()
  expect(proxyFromEnvironment(at(true), { HTTPS_PROXY: 'http://p:1', https_proxy: 'q:2' })?.href).toBe('http://q:2/')
  expect(proxyFromEnvironment(at(false), { ALL_PROXY: 'p:1' })?.href).toBe('http://p:1/')
  expect(proxyFromEnvironment(at(false), { http_proxy: 'p:1', no_proxy: 'a.example' })).toBeUndefined()
  expect(proxyFromEnvironment(at(false), {})).toBeUndefined()
})

test('what cannot be a proxy is told, without its secrets', () => {
  expect(() => proxyUrl('http://', 'it')).toThrow('it is not a URL')
  expect(() => proxyUrl('http://me:canary%@p:1', 'it')).toThrow(
    'it has a % in its user or password that encodes nothing: write %25 for a %',
  )
  expect(Buffer.from(proxyLogin(proxyUrl('http://me:s%25%3A@p:1', 'it')) ?? '', 'base64').toString()).toBe('me:s%:')
  expect(proxyLogin(new URL('http://p:1'))).toBeUndefined()
})
